// The modules of Node that programs under test use, beyond assert. Evaluates to a function of the natives, the parts that the
// host made (assert, Buffer, console, process, timers, inspect, URL) and `later`, which runs a function in a turn of its own;
// returns `require`.
((natives, parts, later) => {
  "use strict";
  const { assert, Buffer, inspect } = parts;
  const path = parts.path(natives);
  // Of Node's own objects, inspect shows what is not here.
  const isForeign = (value) => value === parts.process || [Buffer, EventEmitter, parts.URL, parts.URLSearchParams, parts.TextEncoder, parts.TextDecoder, parts.StringDecoder].some((type) => value instanceof type);
  const texts = parts.texts(() => natives.usesNode("util.inspect"), isForeign);
  const Text = String;
  const coded = (error, code, more) => Object.assign(error, { code, ...more });
  const refuse = (what) => {
    throw coded(new Error(`EPERM: operation not permitted, ${what}`), "EPERM", { errno: -1, syscall: what });
  };

  class EventEmitter {
    #listeners = new Map();
    #of(event) { return this.#listeners.get(event) ?? []; }
    #add(event, f, once, first) {
      if (typeof f !== "function") throw coded(new TypeError('The "listener" argument must be of type function'), "ERR_INVALID_ARG_TYPE");
      const entry = { f, once };
      this.#listeners.set(event, first ? [entry, ...this.#of(event)] : [...this.#of(event), entry]);
      return this;
    }
    on(event, f) { return this.#add(event, f, false, false); }
    addListener(event, f) { return this.#add(event, f, false, false); }
    once(event, f) { return this.#add(event, f, true, false); }
    prependListener(event, f) { return this.#add(event, f, false, true); }
    prependOnceListener(event, f) { return this.#add(event, f, true, true); }
    off(event, f) {
      const list = this.#of(event);
      const at = list.findLastIndex((entry) => entry.f === f);
      if (at >= 0) this.#listeners.set(event, list.filter((_, i) => i !== at));
      if (this.#of(event).length === 0) this.#listeners.delete(event);
      return this;
    }
    removeListener(event, f) { return this.off(event, f); }
    removeAllListeners(event) {
      if (event === undefined) this.#listeners.clear();
      else this.#listeners.delete(event);
      return this;
    }
    emit(event, ...args) {
      const list = this.#of(event);
      if (event === "error" && list.length === 0) {
        throw args[0] instanceof Error ? args[0] : coded(new Error(`Unhandled error. (${inspect(args[0])})`), "ERR_UNHANDLED_ERROR");
      }
      for (const { f, once } of list) {
        if (once) this.off(event, f);
        Reflect.apply(f, this, args);
      }
      return list.length > 0;
    }
    listeners(event) { return this.#of(event).map(({ f }) => f); }
    rawListeners(event) { return this.listeners(event); }
    listenerCount(event) { return this.#of(event).length; }
    eventNames() { return [...this.#listeners.keys()]; }
    setMaxListeners() { return this; }
    getMaxListeners() { return 10; }
  }
  Object.assign(EventEmitter, {
    EventEmitter, defaultMaxListeners: 10,
    once: (emitter, event) => new Promise((resolve, reject) => {
      emitter.once(event, (...args) => resolve(args));
      if (event !== "error") emitter.once("error", reject);
    }),
  });

  // Files and the network are out of reach: file functions throw EPERM, connections do nothing, and a server that listens
  // ends the program as Node does where listening is refused.
  const closed = new Proxy({}, { get: (_, name) => () => refuse(Text(name)) });
  const inert = (used) => {
    const proxy = new Proxy(function () {}, {
      get: (_, name) => (typeof name === "symbol" || name === "then" ? undefined : proxy),
      apply: () => (used(), proxy),
      construct: () => (used(), proxy),
    });
    return proxy;
  };
  class Server extends EventEmitter {
    listening = false;
    listen(...args) {
      const port = typeof args[0] === "object" ? args[0]?.port : args[0];
      const failure = coded(new Error(`listen EPERM: operation not permitted 0.0.0.0:${port ?? 0}`), "EPERM", { errno: -1, syscall: "listen" });
      later(() => this.emit("error", failure));
      return this;
    }
    close(f) {
      if (typeof f === "function") later(f);
      return this;
    }
    address() { return null; }
    ref() { return this; }
    unref() { return this; }
    setTimeout() { return this; }
  }
  const network = (name, members = {}) => {
    const rest = inert(() => natives.usesNode(`node:${name}`));
    const createServer = (...args) => {
      const server = new Server();
      const handler = args.find((arg) => typeof arg === "function");
      return handler ? server.on(name === "net" || name === "tls" ? "connection" : "request", handler) : server;
    };
    return new Proxy({ createServer, Server, ...members }, { get: (own, key) => (key in own ? own[key] : rest[key]) });
  };

  const bytesOf = (data, form) => (typeof data === "string" ? Buffer.from(data, form) : Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  const digest = (algorithm, bytes) => {
    const hex = natives.hash(algorithm.toLowerCase().replace(/^(sha)-(?=\d)/, "$1"), bytes.toString("latin1"));
    if (hex === undefined) throw coded(new Error("Digest method not supported"), "ERR_CRYPTO_INVALID_DIGEST");
    return Buffer.from(hex, "hex");
  };
  const hashing = (finish) => {
    const chunks = [];
    let done = false;
    const hash = {
      update: (data, form) => {
        if (typeof data !== "string" && !ArrayBuffer.isView(data)) throw coded(new TypeError('The "data" argument must be of type string or an instance of Buffer, TypedArray, or DataView.'), "ERR_INVALID_ARG_TYPE");
        chunks.push(bytesOf(data, form));
        return hash;
      },
      digest: (form) => {
        if (done) throw coded(new Error("Digest already called"), "ERR_CRYPTO_HASH_FINALIZED");
        done = true;
        const bytes = finish(Buffer.concat(chunks));
        return form === undefined || form === "buffer" ? bytes : bytes.toString(form);
      },
      copy: () => hashing((more) => finish(Buffer.concat([...chunks, more]))),
    };
    return hash;
  };
  const createHash = (algorithm) => {
    digest(Text(algorithm), Buffer.alloc(0));
    return hashing((bytes) => digest(Text(algorithm), bytes));
  };
  function createHmac(algorithm, key) {
    const name = Text(algorithm);
    const block = /^sha-?(384|512)$/i.test(name) ? 128 : 64;
    let secret = bytesOf(key);
    if (secret.length > block) secret = digest(name, secret);
    const pad = (byte) => Buffer.alloc(block).map((_, i) => (secret[i] ?? 0) ^ byte);
    return hashing((bytes) => digest(name, Buffer.concat([pad(0x5c), digest(name, Buffer.concat([pad(0x36), bytes]))])));
  }
  const randomBytes = (size) => Buffer.alloc(size).map(() => Math.floor(Math.random() * 256));
  function randomUUID() {
    const bytes = randomBytes(16);
    [bytes[6], bytes[8]] = [(bytes[6] & 15) | 64, (bytes[8] & 63) | 128];
    return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  }
  const randomInt = (low, high) => (high === undefined ? Math.floor(Math.random() * low) : low + Math.floor(Math.random() * (high - low)));
  const getRandomValues = (array) => array.map((_, i) => (array[i] = Math.floor(Math.random() * 2 ** 32)));
  const timingSafeEqual = (a, b) => Buffer.compare(a, b) === 0;

  // Promises of functions that take a callback.
  const promisify = (f) => (...args) => new Promise((resolve, reject) => f(...args, (error, value) => (error ? reject(error) : resolve(value))));
  const callbackify = (f) => (...args) => {
    const callback = args.pop();
    f(...args).then((value) => later(() => callback(null, value)), (error) => later(() => callback(error)));
  };
  const kind = (name) => (value) => Object.prototype.toString.call(value) === `[object ${name}]`;
  const types = { isDate: kind("Date"), isRegExp: kind("RegExp"), isMap: kind("Map"), isSet: kind("Set"), isPromise: kind("Promise"), isNativeError: (e) => e instanceof Error, isTypedArray: (v) => ArrayBuffer.isView(v) && !kind("DataView")(v), isUint8Array: kind("Uint8Array"), isAsyncFunction: kind("AsyncFunction"), isGeneratorFunction: kind("GeneratorFunction") };
  const util = {
    ...texts, promisify, callbackify, types,
    isDeepStrictEqual: (a, b) => { try { assert.deepStrictEqual(a, b); return true; } catch { return false; } },
    inherits: (type, parent) => {
      Object.defineProperty(type, "super_", { value: parent, writable: true, configurable: true });
      Object.setPrototypeOf(type.prototype, parent.prototype);
    },
    deprecate: (f) => f, isArray: Array.isArray, TextEncoder: parts.TextEncoder, TextDecoder: parts.TextDecoder,
  };

  function Worker(source) {
    // Runs on this thread, but later, as the parent expects.
    natives.usesNode("node:worker_threads");
    later(() => natives.compile(Text(source)));
    return inert(() => {});
  }
  const crypto = { createHash, createHmac, randomBytes, randomUUID, randomInt, getRandomValues, timingSafeEqual, getHashes: () => ["md5", "sha1", "sha224", "sha256", "sha384", "sha512"] };
  const wait = (ms, value) => new Promise((resolve) => parts.timers.setTimeout(resolve, ms, value));
  const modules = {
    __proto__: null,
    assert, "assert/strict": assert.strict, process: parts.process, console: parts.console, buffer: { Buffer, atob: parts.atob, btoa: parts.btoa },
    fs: closed, "fs/promises": closed, url: { URL: parts.URL, URLSearchParams: parts.URLSearchParams },
    child_process: inert(() => natives.usesNode("node:child_process")), cluster: inert(() => natives.usesNode("node:cluster")),
    net: network("net"), http: network("http"), https: network("https"), tls: network("tls"), http2: network("http2"),
    dns: network("dns"), dgram: network("dgram"), readline: inert(() => natives.usesNode("node:readline")),
    worker_threads: { Worker, isMainThread: true, parentPort: null, workerData: null },
    crypto, events: EventEmitter, util, "util/types": types,
    timers: parts.timers, "timers/promises": { setTimeout: wait, setImmediate: (value) => wait(0, value) },
    path, "path/posix": path, string_decoder: { StringDecoder: parts.StringDecoder },
    perf_hooks: { performance: parts.performance }, os: { EOL: "\n", platform: () => "linux" },
    querystring: { parse: (text) => ({ __proto__: null, ...Object.fromEntries(new parts.URLSearchParams(text)) }), stringify: (object) => Text(new parts.URLSearchParams(object)) },
  };
  const missing = ["async_hooks", "diagnostics_channel", "inspector", "module", "path/win32", "readline/promises", "repl", "stream", "stream/promises", "test", "tty", "v8", "vm", "wasi", "zlib"];

  return function require(name) {
    const plain = Text(name).replace(/^node:/, "");
    if (modules[plain] !== undefined) return modules[plain];
    if (missing.includes(plain)) natives.needsNode(`node:${plain}`);
    throw coded(new Error(`Cannot find module '${name}'`), "MODULE_NOT_FOUND");
  };
})
