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
  const [Bytes, Failure, Text] = [Uint8Array, Error, String];

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

  function thrown(f) {
    try {
      f();
    } catch (error) {
      return { error };
    }
  }

  function fits(error, expected) {
    if (expected === undefined || typeof expected === "string") return true;
    if (tag(expected) === "[object RegExp]") return test(expected, Text(error));
    if (typeof expected !== "function") {
      const wanted = keys(expected);
      for (let i = 0; i < wanted.length; i++) if (!equal(error[wanted[i]], expected[wanted[i]], true)) return false;
      return true;
    }
    if (expected.prototype !== undefined && error instanceof expected) return true;
    return !(expected === Failure || expected.prototype instanceof Failure) && apply(expected, {}, [error]) === true;
  }

  const module = (value, message) => check(value, value, true, message, "==");
  const methods = {
    ok: module,
    equal: (a, b, m) => check(a == b || (a !== a && b !== b), a, b, m, "=="),
    notEqual: (a, b, m) => check(!(a == b || (a !== a && b !== b)), a, b, m, "!="),
    strictEqual: (a, b, m) => check(is(a, b), a, b, m, "strictEqual"),
    notStrictEqual: (a, b, m) => check(!is(a, b), a, b, m, "notStrictEqual"),
    deepEqual: (a, b, m) => check(equal(a, b, false), a, b, m, "deepEqual"),
    notDeepEqual: (a, b, m) => check(!equal(a, b, false), a, b, m, "notDeepEqual"),
    deepStrictEqual: (a, b, m) => check(equal(a, b, true), a, b, m, "deepStrictEqual"),
    notDeepStrictEqual: (a, b, m) => check(!equal(a, b, true), a, b, m, "notDeepStrictEqual"),
    match: (text, pattern, m) => check(test(pattern, text), text, pattern, m, "match"),
    doesNotMatch: (text, pattern, m) => check(!test(pattern, text), text, pattern, m, "doesNotMatch"),
    fail: (m) => check(false, undefined, undefined, m ?? "Failed", "fail"),
    throws: (f, expected, m) => {
      const caught = thrown(f);
      check(caught, undefined, expected, typeof expected === "string" ? expected : m, "throws");
      if (!fits(caught.error, expected)) throw caught.error;
    },
    doesNotThrow: (f, m) => {
      const caught = thrown(f);
      check(!caught, caught?.error, undefined, m, "doesNotThrow");
    },
  };
  Object.assign(module, methods, { AssertionError });
  module.strict = Object.assign((value, message) => check(value, value, true, message, "=="), methods, {
    AssertionError,
    equal: methods.strictEqual,
    notEqual: methods.notStrictEqual,
    deepEqual: methods.deepStrictEqual,
    notDeepEqual: methods.notDeepStrictEqual,
  });
  return module;
})()
