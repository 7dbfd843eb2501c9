// An emulation of the parts of Node that programs under test use. Evaluates to a function of the host's natives and of what the
// other files evaluate to ({ assert, buffer, clone, decoder, inspect, locale, modules, path, url }) that returns what the host calls: { main, guarded,
// rejection, turn }.
//
// natives: write(text) to standard error, exit(code), kill(signal), sleep(ms), now(), hash(algorithm, latin1), compile(code),
// line(number) of the program's source, usesNode(name), collate(..), parseUrl(..), setUrl(..).
((natives, files) => {
  "use strict";
  const { assert } = files;
  const { apply } = Reflect;
  const [Failure, Text, promise] = [Error, String, Promise];
  const then = promise.prototype.then;
  const match = RegExp.prototype.exec;

  // Fails by the name of what this emulation lacks; the judge reports it if the program ends in a failure.
  natives.needsNode = (name) => {
    natives.usesNode(name);
    throw new Failure(`${name} needs Node`);
  };

  // Approximates the text of Node's inspect, closely enough for a search in it.
  function inspect(value, depth = 0) {
    try {
      if (typeof value === "string") return depth ? `'${value}'` : value;
      if (typeof value === "function") return `[Function: ${value.name}]`;
      if (value === null || typeof value !== "object") return Text(value);
      if (depth > 3) return "[Object]";
      const error = value instanceof Failure;
      const parts = [];
      for (const key of Object.keys(value)) parts.push(`${key}: ${inspect(value[key], depth + 1)}`);
      const body = parts.length ? ` {\n  ${parts.join(",\n  ")}\n}` : "";
      if (!error) return body || (Array.isArray(value) ? "[]" : "{}");
      const code = value.code === undefined ? "" : ` [${value.code}]`;
      const cause = "cause" in value ? `\n  [cause]: ${inspect(value.cause, depth + 1)}` : "";
      return `${value.name}${code}: ${value.message}\n${value.stack ?? ""}${body}${cause}`;
    } catch {
      return "[inspection failed]";
    }
  }

  const print = (...values) => natives.write(values.map((value) => inspect(value)).join(" ") + "\n");
  const quiet = () => {};
  const console = { log: quiet, info: quiet, debug: quiet, table: quiet, dir: quiet, time: quiet, timeEnd: quiet, timeLog: quiet, group: quiet, groupCollapsed: quiet, groupEnd: quiet, count: quiet, countReset: quiet };
  Object.assign(console, { error: print, warn: print, trace: print });
  console.assert = (holds, ...values) => holds || print("Assertion failed", ...values);

  // Timers, which keep the event loop alive.
  let timers = [];
  let serial = 0;
  function timer(f, ms, args, repeat) {
    if (typeof f !== "function") throw Object.assign(new TypeError('The "callback" argument must be of type function'), { code: "ERR_INVALID_ARG_TYPE" });
    const due = natives.now() + Math.max(1, +ms || 0);
    const entry = { id: ++serial, f, args, due, every: repeat ? Math.max(1, +ms || 0) : 0, alive: true };
    timers.push(entry);
    const handle = { hasRef: () => entry.alive, refresh: () => handle, close: () => clear(handle), [Symbol.toPrimitive]: () => entry.id };
    handle.ref = () => ((entry.alive = true), handle);
    handle.unref = () => ((entry.alive = false), handle);
    return handle;
  }
  const clear = (handle) => void (timers = timers.filter((entry) => handle === null || handle === undefined || entry.id !== +handle));
  const later = (f) => void timer(f, 0, [], false);
  const microtask = (f) => void apply(then, promise.resolve(), [() => attempt(f)]);

  // What process.nextTick was given: it runs before the promises' reactions.
  const ticks = [];
  function runTicks() {
    for (let i = 0; i < ticks.length; i++) attempt(ticks[i]);
    ticks.length = 0;
  }

  // Promises that were rejected while nobody handled them. One that is handled before the reactions have run is forgotten.
  let unhandled = [];
  function rejection(rejected, reason, handled) {
    if (!handled) unhandled.push({ rejected, reason });
    else unhandled = unhandled.filter((entry) => entry.rejected !== rejected);
  }
  function reportRejections() {
    const reported = unhandled;
    unhandled = [];
    for (const { rejected, reason } of reported) {
      if (listeners.unhandledRejection?.length) attempt(() => emit("unhandledRejection", reason, rejected));
      else if (reason instanceof Failure) uncaught(reason);
      else uncaught(unhandledError(reason));
    }
  }
  function unhandledError(reason) {
    const shown = typeof reason === "object" && reason !== null ? `#<${reason.constructor?.name ?? "Object"}>` : inspect(reason);
    const cause = "This error originated either by throwing inside of an async function without a catch block, or by rejecting a promise which was not handled with .catch().";
    const error = new Failure(`${cause} The promise rejected with the reason "${shown}".`);
    return Object.assign(error, { name: "UnhandledPromiseRejection", code: "ERR_UNHANDLED_REJECTION" });
  }

  const listeners = { __proto__: null };
  const emit = (event, ...args) => (listeners[event] ?? []).map((f) => apply(f, process, args)).length > 0;
  let exiting = false;
  let code;
  const process = {
    argv: ["node", "file.js"], argv0: "node", execArgv: [], env: {}, pid: 2, ppid: 1, platform: "linux", arch: "x64", version: "v20.0.0",
    versions: { node: "20.0.0", v8: "11.3" }, release: { name: "node" }, execPath: "node", title: "node",
    cwd: () => "/", uptime: () => natives.now() / 1000, memoryUsage: () => ({ rss: 0, heapTotal: 0, heapUsed: 0 }), cpuUsage: () => ({ user: 0, system: 0 }),
    hrtime: Object.assign(
      (since = [0, 0]) => {
        const [seconds, rest] = [Math.floor(natives.now() / 1000) - since[0], Math.floor((natives.now() % 1000) * 1e6) - since[1]];
        return rest < 0 ? [seconds - 1, rest + 1e9] : [seconds, rest];
      },
      { bigint: () => BigInt(Math.floor(natives.now() * 1e6)) },
    ),
    nextTick: (f, ...args) => void ticks.push(() => f(...args)),
    exit: (given) => leave(given ?? code ?? 0),
    reallyExit: (given) => natives.exit(given ?? code ?? 0),
    abort: () => natives.kill("SIGABRT"),
    kill: (pid, signal = "SIGTERM") => (+pid === process.pid ? natives.kill(Text(signal)) : refuse("kill")),
    stdin: { __proto__: null, resume: quiet, pause: quiet, on: quiet, once: quiet, setEncoding: quiet, read: () => null },
    stdout: { write: () => true, on: quiet, once: quiet, isTTY: false },
    stderr: { write: (text) => (natives.write(Text(text)), true), on: quiet, once: quiet, isTTY: false },
    on: (event, f) => ((listeners[event] ??= []).push(f), process),
    off: (event, f) => ((listeners[event] = (listeners[event] ?? []).filter((g) => g !== f)), process),
    removeAllListeners: (event) => (delete listeners[event], process),
    listeners: (event) => listeners[event] ?? [],
    listenerCount: (event) => (listeners[event] ?? []).length,
    emit, emitWarning: print,
  };
  process.once = process.addListener = process.prependListener = process.on;
  process.removeListener = process.off;
  Object.defineProperty(process, "exitCode", { get: () => code, set: (value) => void (code = value), enumerable: true });

  function refuse(what) {
    throw Object.assign(new Failure(`EPERM: operation not permitted, ${what}`), { code: "EPERM", errno: -1, syscall: what });
  }

  function leave(given) {
    code = given;
    if (!exiting) {
      exiting = true;
      emit("exit", code);
    }
    natives.exit(code ?? 0);
  }

  // Ends the program as Node does on an uncaught error: prints the source line and the error, exits with code 1.
  function uncaught(error) {
    if (error instanceof RangeError && Text(error.message).startsWith("too many arguments")) natives.usesNode("more than 65,535 arguments");
    if (listeners.uncaughtException?.length && !exiting) return attempt(() => emit("uncaughtException", error, "uncaughtException"));
    const place = apply(match, /file\.js:(\d+)/, [Text(error?.stack ?? "")]);
    if (place) natives.write(`file.js:${place[1]}\n${natives.line(+place[1])}\n\n`);
    natives.write(`${error instanceof Failure ? "" : "Uncaught:\n"}${inspect(error)}\n`);
    leave(1);
  }

  function attempt(f) {
    try {
      f();
    } catch (error) {
      uncaught(error);
    }
  }

  // One step of the event loop, taken when no reaction of a promise is left to run. Ends the process once nothing is left to
  // wait for.
  function turn() {
    if (ticks.length > 0) return runTicks();
    if (unhandled.length > 0) return reportRejections();
    timers.sort((a, b) => a.due - b.due || a.id - b.id);
    if (!timers.some((entry) => entry.alive)) {
      const waiting = timers.length + serial;
      emit("beforeExit", code ?? 0);
      // A listener may have begun something new.
      if (ticks.length > 0 || timers.length + serial > waiting) return;
      leave(code ?? 0);
    }
    const [first] = timers;
    natives.sleep(Math.max(0, first.due - natives.now()));
    if (first.every) first.due = natives.now() + first.every;
    else timers.shift();
    attempt(() => first.f(...first.args));
    runTicks();
  }

  function setTimeout(f, ms, ...args) { return timer(f, ms, args, false); }
  function setInterval(f, ms, ...args) { return timer(f, ms, args, true); }
  function setImmediate(f, ...args) { return timer(f, 0, args, false); }
  const clearing = { clearTimeout: clear, clearInterval: clear, clearImmediate: clear };
  const buffer = files.buffer();
  const url = files.url({ ...natives, TextDecoder: buffer.TextDecoder });
  const performance = { now: natives.now, timeOrigin: Date.now(), mark: quiet, measure: quiet, toJSON: () => ({}) };
  const parts = { assert, console, process, inspect, performance, timers: { setTimeout, setInterval, setImmediate, ...clearing }, ...buffer, ...url, ...files.decoder(buffer.Buffer), path: files.path, texts: files.inspect };
  const require = files.modules(natives, parts, later);
  const { getRandomValues, randomUUID } = require("crypto");
  files.locale(natives);
  const globals = {
    console, process, setTimeout, setInterval, setImmediate, ...clearing, queueMicrotask: microtask, performance,
    ...buffer, ...url, structuredClone: files.clone, crypto: { getRandomValues, randomUUID }, global: globalThis,
  };
  for (const name of ["AbortController", "AbortSignal", "Blob", "BroadcastChannel", "CompressionStream", "DecompressionStream", "Event", "EventTarget", "File", "FormData", "Headers", "MessageChannel", "ReadableStream", "Request", "Response", "TransformStream", "WritableStream", "fetch"]) {
    globals[name] = { [name]: function () { natives.needsNode(name); } }[name];
  }
  globals.WebAssembly = {};
  for (const name of ["compile", "instantiate", "validate", "Module", "Instance", "Memory", "Table"]) {
    globals.WebAssembly[name] = function () { natives.needsNode("WebAssembly"); };
  }
  for (const name in globals) {
    Object.defineProperty(globalThis, name, { value: globals[name], writable: true, configurable: true, enumerable: false });
  }

  // Calls a function with an array of arguments, of which QuickJS takes 65,535 at most and V8 some 125,000. The functions of
  // the language that programs call with whole arrays are called for a part of them at a time.
  const [MOST, V8_MOST] = [65_535, 125_500];
  const slice = Array.prototype.slice;
  const native = Function.prototype.apply;
  const nativeReflect = Reflect.apply;
  const chunks = (list) => {
    const parts = [];
    for (let i = 0; i < list.length; i += MOST) parts[parts.length] = apply(slice, list, [i, i + MOST]);
    return parts;
  };
  const folded = (f) => (self, list) => apply(f, self, chunks(list).map((part) => apply(f, self, part)));
  const inTurn = (f) => (self, list) => chunks(list).map((part) => apply(f, self, part)).at(-1);
  const IN_PARTS = new Map([
    ...[Math.max, Math.min].map((f) => [f, folded(f)]),
    [Array.prototype.push, inTurn(Array.prototype.push)],
    [Array.prototype.unshift, (self, list) => inTurn(Array.prototype.unshift)(self, chunks(list).reverse().flat())],
    ...[String.fromCharCode, String.fromCodePoint].map((f) => [f, (self, list) => chunks(list).map((part) => apply(f, self, part)).join("")]),
    [Array.of, (self, list) => apply(slice, list, [])],
    [Array, (self, list) => apply(slice, list, [])],
    [Array.prototype.concat, (self, list) => chunks(list).reduce((joined, part) => apply(Array.prototype.concat, joined, part), self)],
  ]);
  function callWith(f, self, list) {
    if (!(list?.length > MOST) || typeof f !== "function") return nativeReflect(native, f, [self, list]);
    if (list.length > V8_MOST) throw new RangeError("Maximum call stack size exceeded");
    const inParts = IN_PARTS.get(f);
    return inParts ? inParts(self, list) : natives.needsNode("more than 65,535 arguments");
  }
  const method = { apply(self, list) { return callWith(this, self, list); } }.apply;
  Object.defineProperty(Function.prototype, "apply", { value: method, writable: true, configurable: true });
  Object.defineProperty(Reflect, "apply", {
    value: function apply(f, self, list) { return list?.length > MOST ? callWith(f, self, list) : nativeReflect(f, self, list); },
    writable: true, configurable: true,
  });
  // A call whose arguments are spread, as the judge rewrites it.
  const spread = (self, key, list) => (list.length > MOST ? callWith(self[key], self, list) : self[key](...list));

  // A power, as the judge rewrites it: that of numbers is the judge's own.
  const { pow } = Math;
  function power(a, b) {
    if (typeof a !== "number" || typeof b !== "number") [a, b] = [-(-a), -(-b)];
    return typeof a === "number" && typeof b === "number" ? pow(a, b) : a ** b;
  }
  power.of = (object, key) => {
    const name = typeof key === "symbol" ? key : Text(key);
    return { object, name, value: object[name] };
  };
  power.assign = ({ object, name, value }, exponent) => (object[name] = power(value, exponent));

  // Node's module wrapper, on the first line so that line numbers are those of the program.
  const wrap = (program) => natives.compile(`(function (exports, require, module, __filename, __dirname, ${natives.spreadName}, ${natives.powerName}) {${program}\n})`);
  function call(f, require) {
    const module = { exports: {} };
    return apply(f, module.exports, [module.exports, require, module, "/file.js", "/", spread, power]);
  }

  return {
    turn: () => attempt(turn),
    rejection,
    main: (program) => {
      attempt(() => call(wrap(program), require));
      runTicks();
    },
    // Runs the guarded program. The candidate may add to assert, and cannot replace a part of it, by whatever name either
    // side calls it.
    guarded: (program, reached) => attempt(() => {
      for (const f of [assert, assert.strict]) {
        for (const key of Reflect.ownKeys(f)) Object.defineProperty(f, key, { writable: false, configurable: false });
      }
      const own = (name) => (name === "assert" || name === "node:assert" ? assert : require(name));
      call(wrap(program), require)(own);
      runTicks();
      reached();
    }),
  };
})
