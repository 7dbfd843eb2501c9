// An emulation of the parts of Node that programs under test use. Evaluates to a function of the host's natives and the
// assert module that returns what the host calls: { main, guarded, uncaught, turn }.
//
// natives: write(text) to standard error, exit(code), kill(signal), sleep(ms), now(), hash(algorithm, text), compile(code),
// line(number) of the program's source.
((natives, assert) => {
  "use strict";
  const { apply } = Reflect;
  const [Failure, Text, promise] = [Error, String, Promise];
  const then = promise.prototype.then;
  const match = RegExp.prototype.exec;

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
  const console = { log: quiet, info: quiet, debug: quiet, table: quiet, dir: quiet, time: quiet, timeEnd: quiet, group: quiet, groupEnd: quiet };
  Object.assign(console, { error: print, warn: print, trace: print });
  console.assert = (holds, ...values) => holds || print("Assertion failed", ...values);

  // Timers, which keep the event loop alive.
  let timers = [];
  let serial = 0;
  function timer(f, ms, args, repeat) {
    const due = natives.now() + Math.max(1, +ms || 0);
    const entry = { id: ++serial, f, args, due, every: repeat ? Math.max(1, +ms || 0) : 0, alive: true };
    timers.push(entry);
    const handle = { ref: () => handle, hasRef: () => entry.alive, [Symbol.toPrimitive]: () => entry.id };
    handle.unref = () => ((entry.alive = false), handle);
    return handle;
  }
  const clear = (handle) => void (timers = timers.filter((entry) => entry.id !== +handle));
  const microtask = (f) => void apply(then, promise.resolve(), [() => attempt(f)]);

  const listeners = { __proto__: null };
  const emit = (event, ...args) => (listeners[event] ?? []).map((f) => apply(f, process, args)).length > 0;
  let exiting = false;
  let code;
  const process = {
    argv: ["node", "file.js"], env: {}, pid: 2, ppid: 1, platform: "linux", arch: "x64", version: "v20.0.0",
    versions: { node: "20.0.0" }, execPath: "node", title: "node",
    cwd: () => "/", uptime: () => natives.now() / 1000, memoryUsage: () => ({ rss: 0, heapTotal: 0, heapUsed: 0 }),
    hrtime: Object.assign(() => [Math.floor(natives.now() / 1000), (natives.now() % 1000) * 1e6], { bigint: () => BigInt(Math.floor(natives.now() * 1e6)) }),
    nextTick: (f, ...args) => microtask(() => f(...args)),
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
    emit, emitWarning: print,
  };
  process.once = process.addListener = process.prependListener = process.on;
  process.removeListener = process.off;
  Object.defineProperty(process, "exitCode", { get: () => code, set: (value) => void (code = value), enumerable: true });

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

  // One turn of the event loop. Ends the process once nothing is left to wait for.
  function turn() {
    timers.sort((a, b) => a.due - b.due || a.id - b.id);
    if (!timers.some((entry) => entry.alive)) {
      emit("beforeExit", code ?? 0);
      leave(code ?? 0);
    }
    const [first] = timers;
    natives.sleep(Math.max(0, first.due - natives.now()));
    if (first.every) first.due = natives.now() + first.every;
    else timers.shift();
    attempt(() => first.f(...first.args));
  }

  function refuse(what) {
    throw Object.assign(new Failure(`EPERM: operation not permitted, ${what}`), { code: "EPERM", errno: -1, syscall: what });
  }

  // Files, processes and the network are out of reach: file functions throw EPERM; the others accept every call and do nothing.
  const closed = new Proxy({}, { get: (_, name) => () => refuse(Text(name)) });
  const inert = new Proxy(function () {}, {
    get: (_, name) => (typeof name === "symbol" || name === "then" ? undefined : inert),
    apply: () => inert,
    construct: () => inert,
  });
  function Worker(source) {
    // Runs on this thread, but later, as the parent expects.
    timer(() => natives.compile(Text(source)), 0, []);
    return inert;
  }
  const createHash = (algorithm) => {
    let text = "";
    const hash = { update: (more) => ((text += more), hash), digest: (form) => (form === "hex" ? natives.hash(Text(algorithm), text) : refuse(`digest ${form}`)) };
    return hash;
  };
  const modules = {
    __proto__: null,
    assert, "assert/strict": assert.strict, process, console,
    fs: closed, "fs/promises": closed,
    child_process: inert, net: inert, http: inert, https: inert, dns: inert, dgram: inert, tls: inert, cluster: inert, readline: inert,
    worker_threads: { Worker, isMainThread: true, parentPort: null },
    crypto: { createHash }, timers: { setTimeout, setInterval, setImmediate, clearTimeout: clear },
    util: { inspect, isDeepStrictEqual: (a, b) => { try { assert.deepStrictEqual(a, b); return true; } catch { return false; } } },
    perf_hooks: { performance: { now: natives.now } },
  };
  function require(name) {
    const module = modules[Text(name).replace(/^node:/, "")];
    if (module !== undefined) return module;
    throw Object.assign(new Failure(`Cannot find module '${name}'`), { code: "MODULE_NOT_FOUND" });
  }

  function setTimeout(f, ms, ...args) { return timer(f, ms, args, false); }
  function setInterval(f, ms, ...args) { return timer(f, ms, args, true); }
  function setImmediate(f, ...args) { return timer(f, 0, args, false); }
  const globals = {
    console, process, setTimeout, setInterval, setImmediate, clearTimeout: clear, clearInterval: clear, clearImmediate: clear,
    queueMicrotask: microtask, performance: { now: natives.now },
    structuredClone: (value) => JSON.parse(JSON.stringify(value)), global: globalThis,
  };
  for (const name in globals) {
    Object.defineProperty(globalThis, name, { value: globals[name], writable: true, configurable: true, enumerable: false });
  }

  // Node's module wrapper, on the first line so that line numbers are those of the program.
  const wrap = (program) => natives.compile(`(function (exports, require, module, __filename, __dirname) {${program}\n})`);
  function call(f, require) {
    const module = { exports: {} };
    return apply(f, module.exports, [module.exports, require, module, "/file.js", "/"]);
  }

  return {
    turn: () => attempt(turn),
    uncaught,
    main: (program) => attempt(() => call(wrap(program), require)),
    // Runs the tests in a scope that the candidate cannot reach, with an assert from before it ran.
    guarded: (candidate, tests, reached) => attempt(() => {
      const pristine = Object.assign((...args) => apply(assert, undefined, args), assert);
      const own = (name) => (name === "assert" || name === "node:assert" ? pristine : require(name));
      const inner = call(wrap(`${candidate}\n;return function (require) {${tests}\n}`), require);
      inner(own);
      reached();
    }),
  };
})
