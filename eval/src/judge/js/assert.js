// The parts of Node 20's `node:assert` that tests use, modelled on its lib/internal/util/comparisons.js.
// Evaluates to the module. Every built-in that it calls is captured here, before a judged program can replace it.
(() => {
  "use strict";
  const { defineProperty, getPrototypeOf, is, keys, getOwnPropertySymbols } = Object;
  const { isArray } = Array;
  const { apply } = Reflect;
  const bound = (method) => (self, ...args) => apply(method, self, args);
  const tag = bound(Object.prototype.toString);
  const has = bound(Object.prototype.hasOwnProperty);
  const enumerable = bound(Object.prototype.propertyIsEnumerable);
  const time = bound(Date.prototype.getTime);
  const test = bound(RegExp.prototype.test);
  const [setValues, setHas] = [bound(Set.prototype.values), bound(Set.prototype.has)];
  const [mapKeys, mapGet, mapHas] = [bound(Map.prototype.keys), bound(Map.prototype.get), bound(Map.prototype.has)];
  const sizeOf = { "[object Set]": bound(getter(Set, "size")), "[object Map]": bound(getter(Map, "size")) };
  const next = bound(getPrototypeOf(new Set().values()).next);
  const mapNext = bound(getPrototypeOf(new Map().keys()).next);
  const boxed = {
    "[object Number]": bound(Number.prototype.valueOf),
    "[object String]": bound(String.prototype.valueOf),
    "[object Boolean]": bound(Boolean.prototype.valueOf),
    "[object BigInt]": bound(BigInt.prototype.valueOf),
    "[object Symbol]": bound(Symbol.prototype.valueOf),
  };
  const isView = ArrayBuffer.isView;
  const isPrototypeOf = Object.prototype.isPrototypeOf;
  const [Bytes, Failure, Mistake, Text] = [Uint8Array, Error, TypeError, String];

  function getter(type, name) {
    return Object.getOwnPropertyDescriptor(type.prototype, name).get;
  }

  function list(iterator, step) {
    const values = [];
    for (let item = step(iterator); !item.done; item = step(iterator)) values[values.length] = item.value;
    return values;
  }

  // Own enumerable keys that are not array indices.
  function namedKeys(object) {
    const named = [];
    const all = keys(object);
    for (let i = 0; i < all.length; i++) {
      const key = all[i];
      if (Text(key >>> 0) !== key) named[named.length] = key;
    }
    return named;
  }

  function equal(a, b, strict, seen) {
    if (a === b) return a !== 0 || !strict || is(a, b);
    if (strict) {
      if (typeof a !== "object") return typeof a === "number" && a !== a && b !== b;
      if (typeof b !== "object" || a === null || b === null || getPrototypeOf(a) !== getPrototypeOf(b)) return false;
    } else {
      if (a === null || typeof a !== "object") {
        return (b === null || typeof b !== "object") && (a == b || (a !== a && b !== b));
      }
      if (b === null || typeof b !== "object") return false;
    }
    const kind = tag(a);
    if (kind !== tag(b) || isArray(a) !== isArray(b)) return false;
    if (isArray(a)) {
      return a.length === b.length && sameKeys(a, b, strict, seen, namedKeys(a), namedKeys(b), kind);
    }
    if (kind === "[object Date]" && time(a) !== time(b)) return false;
    if (kind === "[object RegExp]" && (Text(a) !== Text(b) || a.lastIndex !== b.lastIndex)) return false;
    if (a instanceof Failure || b instanceof Failure) {
      if (!(a instanceof Failure && b instanceof Failure) || a.message !== b.message || a.name !== b.name) return false;
    }
    if (isView(a)) {
      if (!isView(b) || !sameView(a, b, strict)) return false;
      return sameKeys(a, b, strict, seen, namedKeys(a), namedKeys(b), kind);
    }
    if (sizeOf[kind] && sizeOf[kind](a) !== sizeOf[kind](b)) return false;
    if (boxed[kind] && !is(boxed[kind](a), boxed[kind](b))) return false;
    return sameKeys(a, b, strict, seen, keys(a), keys(b), kind);
  }

  function sameView(a, b, strict) {
    if (a.length === undefined) {
      [a, b] = [new Bytes(a.buffer, a.byteOffset, a.byteLength), new Bytes(b.buffer, b.byteOffset, b.byteLength)];
    }
    if (a.length !== b.length) return false;
    for (let i = 0; i < a.length; i++) if (strict ? !is(a[i], b[i]) : a[i] !== b[i]) return false;
    return true;
  }

  function sameKeys(a, b, strict, seen, aKeys, bKeys, kind) {
    if (aKeys.length !== bKeys.length) return false;
    for (let i = 0; i < aKeys.length; i++) if (!has(b, aKeys[i])) return false;
    if (strict && !sameSymbols(a, b, seen)) return false;
    // A pair that is already being compared further up counts as equal, so that cycles end.
    for (let pair = seen; pair; pair = pair.outer) if (pair.a === a || pair.b === b) return pair.a === a && pair.b === b;
    seen = { a, b, outer: seen };
    if (isArray(a) && !sameElements(a, b, strict, seen)) return false;
    if (kind === "[object Set]" && !sameSets(a, b, strict, seen)) return false;
    if (kind === "[object Map]" && !sameMaps(a, b, strict, seen)) return false;
    for (let i = 0; i < aKeys.length; i++) if (!equal(a[aKeys[i]], b[aKeys[i]], strict, seen)) return false;
    return true;
  }

  function sameSymbols(a, b, seen) {
    const own = (object) => {
      const [all, shown] = [getOwnPropertySymbols(object), []];
      for (let i = 0; i < all.length; i++) if (enumerable(object, all[i])) shown[shown.length] = all[i];
      return shown;
    };
    const [left, right] = [own(a), own(b)];
    if (left.length !== right.length) return false;
    for (let i = 0; i < left.length; i++) {
      if (!enumerable(b, left[i]) || !equal(a[left[i]], b[left[i]], true, seen)) return false;
    }
    return true;
  }

  function sameElements(a, b, strict, seen) {
    for (let i = 0; i < a.length; i++) {
      if (has(a, i) !== has(b, i)) return false;
      if (!equal(a[i], b[i], strict, seen)) return false;
    }
    return true;
  }

  // Each value of `a` is paired with one value of `b`: an identical one if there is one.
  function sameSets(a, b, strict, seen) {
    const left = [];
    const all = list(setValues(a), next);
    for (let i = 0; i < all.length; i++) {
      const value = all[i];
      if ((value !== null && typeof value === "object") || !setHas(b, value)) left[left.length] = value;
    }
    const right = [];
    const others = list(setValues(b), next);
    for (let i = 0; i < others.length; i++) {
      const value = others[i];
      if ((value !== null && typeof value === "object") || !setHas(a, value)) right[right.length] = value;
    }
    return left.length === right.length && matched(left, right, (x, y) => equal(x, y, strict, seen));
  }

  function sameMaps(a, b, strict, seen) {
    const [left, right] = [[], []];
    const plain = (key) => key === null || typeof key !== "object";
    const [aKeys, bKeys] = [list(mapKeys(a), mapNext), list(mapKeys(b), mapNext)];
    for (let i = 0; i < aKeys.length; i++) {
      const key = aKeys[i];
      if (!plain(key) || !mapHas(b, key)) left[left.length] = key;
      else if (!equal(mapGet(a, key), mapGet(b, key), strict, seen)) return false;
    }
    for (let i = 0; i < bKeys.length; i++) {
      if (!plain(bKeys[i]) || !mapHas(a, bKeys[i])) right[right.length] = bKeys[i];
    }
    const same = (x, y) => equal(x, y, strict, seen) && equal(mapGet(a, x), mapGet(b, y), strict, seen);
    return left.length === right.length && matched(left, right, same);
  }

  function matched(left, right, same) {
    const taken = [];
    for (let i = 0; i < left.length; i++) {
      let found = -1;
      for (let j = 0; j < right.length && found < 0; j++) if (!taken[j] && same(left[i], right[j])) found = j;
      if (found < 0) return false;
      taken[found] = true;
    }
    return true;
  }

  class AssertionError extends Error {
    constructor({ message, actual, expected, operator }) {
      super(message ?? `Expected values to satisfy ${operator}`);
      const own = { generatedMessage: message === undefined, code: "ERR_ASSERTION", actual, expected, operator };
      for (const key in own) defineProperty(this, key, { value: own[key], enumerable: true, writable: true, configurable: true });
    }
    get name() {
      return "AssertionError";
    }
  }

  function check(holds, actual, expected, message, operator) {
    if (holds) return;
    if (message instanceof Failure) throw message;
    throw new AssertionError({ message, actual, expected, operator });
  }

  const refuse = (Kind, code, message) => {
    throw defineProperty(new Kind(message), "code", { value: code, enumerable: true, writable: true, configurable: true });
  };

  // `pair` holds the two arguments that a comparison needs.
  function both(pair) {
    if (pair.length < 2) refuse(Mistake, "ERR_MISSING_ARGS", 'The "actual" and "expected" arguments must be specified');
  }

  function thrown(f) {
    if (typeof f !== "function") refuse(Mistake, "ERR_INVALID_ARG_TYPE", `The "fn" argument must be of type function. Received ${typeof f}`);
    try {
      f();
    } catch (error) {
      return { error };
    }
  }

  // Returns the rejection of a promise, or of the promise that a function returns; undefined if it is fulfilled.
  async function rejection(promise) {
    if (typeof promise === "function") {
      promise = promise();
      if (typeof promise?.then !== "function") refuse(Mistake, "ERR_INVALID_RETURN_VALUE", 'Expected instance of Promise to be returned from the "promiseFn" function');
    } else if (promise === null || typeof promise !== "object" || typeof promise.then !== "function") {
      refuse(Mistake, "ERR_INVALID_ARG_TYPE", 'The "promiseFn" argument must be of type function or an instance of Promise');
    }
    try {
      await promise;
    } catch (error) {
      return { error };
    }
  }

  // Checks that something was thrown (or rejected with) that `expected` describes, as Node's expectsError does.
  function expectError(caught, expected, message, operator) {
    if (typeof expected === "string") {
      if (caught && (caught.error?.message === expected || caught.error === expected)) {
        refuse(Mistake, "ERR_AMBIGUOUS_ARGUMENT", `The "error/message" argument is ambiguous. The error message "${expected}" is identical to the message.`);
      }
      [message, expected] = [expected, undefined];
    } else if (expected !== undefined && expected !== null && typeof expected !== "object" && typeof expected !== "function") {
      refuse(Mistake, "ERR_INVALID_ARG_TYPE", 'The "error" argument must be of type function or an instance of Error, RegExp, or Object');
    }
    const kind = operator === "rejects" ? "rejection" : "exception";
    const details = `${expected?.name ? ` (${expected.name})` : ""}${message ? `: ${message}` : "."}`;
    if (!caught) check(false, undefined, expected, `Missing expected ${kind}${details}`, operator);
    if (expected) check(fits(caught.error, expected, message, operator), caught.error, expected, message, operator);
  }

  function fits(error, expected, message, operator) {
    if (tag(expected) === "[object RegExp]") return test(expected, Text(error));
    if (typeof expected === "function") {
      if (expected.prototype !== undefined && error instanceof expected) return true;
      return !apply(isPrototypeOf, Failure, [expected]) && apply(expected, {}, [error]) === true;
    }
    if (error === null || typeof error !== "object") return false;
    const wanted = keys(expected);
    if (expected instanceof Failure) wanted[wanted.length] = "name", wanted[wanted.length] = "message";
    else if (wanted.length === 0) refuse(Mistake, "ERR_INVALID_ARG_VALUE", "The argument 'error' may not be an empty object. Received {}");
    for (let i = 0; i < wanted.length; i++) {
      const [own, pattern] = [error[wanted[i]], expected[wanted[i]]];
      if (typeof own === "string" && tag(pattern) === "[object RegExp]" && test(pattern, own)) continue;
      check(wanted[i] in error && equal(own, pattern, true), error, expected, message, operator);
    }
    return true;
  }

  function expectNoError(caught, expected, message, operator) {
    if (!caught) return;
    if (typeof expected === "string") [message, expected] = [expected, undefined];
    if (expected && typeof expected !== "function" && tag(expected) !== "[object RegExp]") {
      refuse(Mistake, "ERR_INVALID_ARG_TYPE", 'The "expected" argument must be of type function or an instance of RegExp');
    }
    if (expected && !fits(caught.error, expected)) throw caught.error;
    const kind = operator === "doesNotReject" ? "rejection" : "exception";
    check(false, caught.error, expected, `Got unwanted ${kind}${message ? `: ${message}` : "."}`, operator);
  }

  function matching(text, pattern, wanted, message, operator) {
    if (tag(pattern) !== "[object RegExp]") refuse(Mistake, "ERR_INVALID_ARG_TYPE", 'The "regexp" argument must be an instance of RegExp');
    check(typeof text === "string" && test(pattern, text) === wanted, text, pattern, message, operator);
  }

  function noError(value) {
    if (value === null || value === undefined) return;
    const text = typeof value === "object" && typeof value.message === "string" ? value.message || value.constructor.name : Text(value);
    check(false, value, null, `ifError got unwanted exception: ${text}`, "ifError");
  }

  const truthy = (...given) => {
    const [value, message] = given;
    check(value, value, true, given.length === 0 ? "No value argument passed to `assert.ok()`" : message, "==");
  };
  const loose = (a, b) => a == b || (a !== a && b !== b);
  // The comparisons: each takes two values and a message.
  const comparisons = {
    equal: [loose, "=="],
    notEqual: [(a, b) => !loose(a, b), "!="],
    strictEqual: [is, "strictEqual"],
    notStrictEqual: [(a, b) => !is(a, b), "notStrictEqual"],
    deepEqual: [(a, b) => equal(a, b, false), "deepEqual"],
    notDeepEqual: [(a, b) => !equal(a, b, false), "notDeepEqual"],
    deepStrictEqual: [(a, b) => equal(a, b, true), "deepStrictEqual"],
    notDeepStrictEqual: [(a, b) => !equal(a, b, true), "notDeepStrictEqual"],
  };
  const module = (...given) => apply(truthy, undefined, given);
  const methods = {
    ok: truthy,
    match: (text, pattern, m) => matching(text, pattern, true, m, "match"),
    doesNotMatch: (text, pattern, m) => matching(text, pattern, false, m, "doesNotMatch"),
    fail: (m) => check(false, undefined, undefined, m ?? "Failed", "fail"),
    ifError: noError,
    throws: (f, expected, m) => expectError(thrown(f), expected, m, "throws"),
    doesNotThrow: (f, expected, m) => expectNoError(thrown(f), expected, m, "doesNotThrow"),
    rejects: async (f, expected, m) => expectError(await rejection(f), expected, m, "rejects"),
    doesNotReject: async (f, expected, m) => expectNoError(await rejection(f), expected, m, "doesNotReject"),
  };
  for (const name in comparisons) {
    const [holds, operator] = comparisons[name];
    methods[name] = (...pair) => {
      both(pair);
      check(holds(pair[0], pair[1]), pair[0], pair[1], pair[2], operator);
    };
  }
  Object.assign(module, methods, { AssertionError });
  module.strict = Object.assign((...given) => apply(truthy, undefined, given), methods, {
    AssertionError,
    equal: methods.strictEqual,
    notEqual: methods.notStrictEqual,
    deepEqual: methods.deepStrictEqual,
    notDeepEqual: methods.notDeepStrictEqual,
  });
  module.strict.strict = module.strict;
  return module;
})()
