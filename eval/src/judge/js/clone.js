// structuredClone: copies cycles, maps, sets, dates, regular expressions, errors, boxes and bytes; refuses what has code.
(() => {
  "use strict";
  const tag = (value) => Object.prototype.toString.call(value).slice(8, -1);
  const Failure = typeof DOMException === "function" ? DOMException : Error;
  const refuse = (value) => {
    const what = typeof value === "symbol" ? String(value) : typeof value === "function" ? String(value) : `#<${value?.constructor?.name ?? "Object"}>`;
    throw new Failure(`${what} could not be cloned.`, "DataCloneError");
  };
  const ERRORS = { __proto__: null, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };

  function copy(value, seen) {
    if (typeof value === "function" || typeof value === "symbol") refuse(value);
    if (value === null || typeof value !== "object") return value;
    if (seen.has(value)) return seen.get(value);
    const keep = (made) => (seen.set(value, made), made);
    const within = (inner) => copy(inner, seen);
    if (Array.isArray(value)) return fill(keep(new Array(value.length)), value, within);
    if (value instanceof Date) return keep(new Date(value.getTime()));
    if (value instanceof RegExp) return keep(new RegExp(value.source, value.flags));
    if (value instanceof Map) {
      const made = keep(new Map());
      for (const [key, item] of [...value]) made.set(within(key), within(item));
      return made;
    }
    if (value instanceof Set) {
      const made = keep(new Set());
      for (const item of [...value]) made.add(within(item));
      return made;
    }
    if (value instanceof ArrayBuffer) return keep(value.slice(0));
    if (ArrayBuffer.isView(value)) {
      const Kind = value instanceof DataView ? DataView : globalThis[value[Symbol.toStringTag]];
      return keep(new Kind(within(value.buffer), value.byteOffset, value instanceof DataView ? value.byteLength : value.length));
    }
    if (value instanceof Error) {
      const made = keep(Object.create((ERRORS[value.name] ?? Error).prototype));
      const hidden = (name, item) => Object.defineProperty(made, name, { value: item, writable: true, configurable: true });
      for (const name of ["stack", "message", "cause"]) if (Object.hasOwn(value, name) || name === "stack") hidden(name, within(value[name]));
      return made;
    }
    if (["Number", "String", "Boolean", "BigInt"].includes(tag(value))) return keep(Object(value.valueOf()));
    if (["Symbol", "Promise", "WeakMap", "WeakSet", "WeakRef", "Generator"].includes(tag(value))) refuse(value);
    return fill(keep({}), value, within);
  }

  function fill(made, value, within) {
    for (const key of Object.keys(value)) made[key] = within(value[key]);
    return made;
  }

  return function structuredClone(value) {
    if (arguments.length === 0) throw new TypeError("The \"value\" argument must be specified");
    return copy(value, new Map());
  };
})()
