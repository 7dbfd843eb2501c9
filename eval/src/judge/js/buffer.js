// Node's Buffer, TextEncoder, TextDecoder, atob and btoa. Evaluates to a function of nothing that returns them.
(() => {
  "use strict";
  const Text = String;
  const { fromCharCode } = String;
  const coded = (error, code) => Object.assign(error, { code });
  const wrongType = (name, wanted, value) =>
    coded(new TypeError(`The "${name}" argument must be ${wanted}. Received ${value === null ? "null" : `type ${typeof value}`}`), "ERR_INVALID_ARG_TYPE");

  function utf8Bytes(text) {
    const bytes = [];
    for (let i = 0; i < text.length; i++) {
      let c = text.charCodeAt(i);
      if (c >= 0xd800 && c < 0xe000) {
        const low = c < 0xdc00 ? text.charCodeAt(i + 1) : 0;
        if (low >= 0xdc00 && low < 0xe000) {
          c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
          i++;
        } else c = 0xfffd;
      }
      if (c < 0x80) bytes.push(c);
      else if (c < 0x800) bytes.push(0xc0 | (c >> 6), 0x80 | (c & 63));
      else if (c < 0x10000) bytes.push(0xe0 | (c >> 12), 0x80 | ((c >> 6) & 63), 0x80 | (c & 63));
      else bytes.push(0xf0 | (c >> 18), 0x80 | ((c >> 12) & 63), 0x80 | ((c >> 6) & 63), 0x80 | (c & 63));
    }
    return bytes;
  }

  // The text of UTF-8 bytes; what is invalid becomes U+FFFD as the Encoding standard says, or calls `onError`.
  function utf8Text(bytes, onError = () => {}) {
    const parts = [];
    let text = "";
    let [code, needed, lower, upper] = [0, 0, 0x80, 0xbf];
    const bad = () => {
      onError();
      text += "\ufffd";
    };
    for (let i = 0; i < bytes.length; i++) {
      const b = bytes[i];
      if (needed === 0) {
        if (b < 0x80) text += fromCharCode(b);
        else if (b >= 0xc2 && b <= 0xdf) [needed, code] = [1, b & 31];
        else if (b >= 0xe0 && b <= 0xef) {
          [needed, code] = [2, b & 15];
          if (b === 0xe0) lower = 0xa0;
          if (b === 0xed) upper = 0x9f;
        } else if (b >= 0xf0 && b <= 0xf4) {
          [needed, code] = [3, b & 7];
          if (b === 0xf0) lower = 0x90;
          if (b === 0xf4) upper = 0x8f;
        } else bad();
      } else if (b < lower || b > upper) {
        [needed, lower, upper] = [0, 0x80, 0xbf];
        bad();
        i--;
      } else {
        [lower, upper, code, needed] = [0x80, 0xbf, (code << 6) | (b & 63), needed - 1];
        if (needed === 0) text += String.fromCodePoint(code);
      }
      if (text.length > 4096) {
        parts.push(text);
        text = "";
      }
    }
    if (needed > 0) bad();
    return parts.join("") + text;
  }

  const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const DIGIT = { __proto__: null, "-": 62, _: 63 };
  for (let i = 0; i < 64; i++) DIGIT[ALPHABET[i]] = i;

  function base64Text(bytes, url) {
    let text = "";
    for (let i = 0; i < bytes.length; i += 3) {
      const n = (bytes[i] << 16) | ((bytes[i + 1] ?? 0) << 8) | (bytes[i + 2] ?? 0);
      const group = ALPHABET[n >> 18] + ALPHABET[(n >> 12) & 63] + ALPHABET[(n >> 6) & 63] + ALPHABET[n & 63];
      const kept = Math.min(4, bytes.length - i + 1);
      text += group.slice(0, kept) + (url ? "" : "=".repeat(4 - kept));
    }
    return url ? text.replaceAll("+", "-").replaceAll("/", "_") : text;
  }

  function base64Bytes(text) {
    const bytes = [];
    let [bits, held] = [0, 0];
    for (let i = 0; i < text.length && text[i] !== "="; i++) {
      const digit = DIGIT[text[i]];
      if (digit === undefined) continue;
      [bits, held] = [((bits << 6) | digit) & 0xffffff, held + 6];
      if (held >= 8) bytes.push((bits >> (held -= 8)) & 255);
    }
    return bytes;
  }

  function hexBytes(text) {
    const bytes = [];
    for (let i = 0; i + 1 < text.length; i += 2) {
      const pair = text.slice(i, i + 2);
      if (!/^[0-9a-f]{2}$/i.test(pair)) break;
      bytes.push(parseInt(pair, 16));
    }
    return bytes;
  }

  const units = (text, mask) => Array.from({ length: text.length }, (_, i) => text.charCodeAt(i) & mask);
  const characters = (bytes, mask) => Array.from(bytes, (b) => fromCharCode(b & mask)).join("");
  const utf16 = {
    bytes: (text) => units(text, 0xffff).flatMap((unit) => [unit & 255, unit >> 8]),
    text: (bytes) => {
      let text = "";
      for (let i = 0; i + 1 < bytes.length; i += 2) text += fromCharCode(bytes[i] | (bytes[i + 1] << 8));
      return text;
    },
  };
  const latin1 = { bytes: (text) => units(text, 255), text: (bytes) => characters(bytes, 255) };
  const utf8 = { bytes: utf8Bytes, text: (bytes) => utf8Text(bytes) };
  const ENCODINGS = {
    __proto__: null,
    utf8, "utf-8": utf8, latin1, binary: latin1, "utf16le": utf16, "utf-16le": utf16, ucs2: utf16, "ucs-2": utf16,
    ascii: { bytes: latin1.bytes, text: (bytes) => characters(bytes, 127) },
    hex: { bytes: hexBytes, text: (bytes) => Array.from(bytes, (b) => (b < 16 ? "0" : "") + b.toString(16)).join("") },
    base64: { bytes: base64Bytes, text: (bytes) => base64Text(bytes, false) },
    base64url: { bytes: base64Bytes, text: (bytes) => base64Text(bytes, true) },
  };

  function encoding(name) {
    const found = name === undefined || name === null || name === "" ? utf8 : ENCODINGS[Text(name).toLowerCase()];
    if (found === undefined) throw coded(new TypeError(`Unknown encoding: ${name}`), "ERR_UNKNOWN_ENCODING");
    return found;
  }

  const isBytes = (value) => value instanceof Uint8Array;
  const isBuffer = (value) => value instanceof Buffer;
  const wrap = (bytes) => new Bytes(bytes);
  const asBytes = (value, form) => {
    if (typeof value === "string") return encoding(form).bytes(value);
    if (isBytes(value)) return value;
    throw wrongType("value", "one of type string, Buffer or Uint8Array", value);
  };

  // The class itself; `Buffer` below is the function that Node exports, callable without `new`.
  class Bytes extends Uint8Array {
    static from(value, second, third) {
      if (typeof value === "string") return wrap(encoding(second).bytes(value));
      if (value instanceof ArrayBuffer || (typeof SharedArrayBuffer === "function" && value instanceof SharedArrayBuffer)) {
        return new Bytes(value, second, third);
      }
      if (value !== null && typeof value === "object") {
        if (value.type === "Buffer" && Array.isArray(value.data)) return wrap(value.data);
        if (typeof value.length === "number" || ArrayBuffer.isView(value)) return wrap(Array.from(value, (b) => b & 255));
        const primitive = value.valueOf?.();
        if (primitive !== undefined && primitive !== null && primitive !== value) return Bytes.from(primitive, second, third);
        if (typeof value[Symbol.toPrimitive] === "function") return Bytes.from(value[Symbol.toPrimitive]("string"), second);
      }
      throw wrongType("first argument", "of type string or an instance of Buffer, ArrayBuffer, or Array or an Array-like Object", value);
    }
    static of(...bytes) { return wrap(bytes); }
    static alloc(size, fill, form) {
      if (typeof size !== "number") throw wrongType("size", "of type number", size);
      const made = new Bytes(size);
      return fill === undefined || fill === 0 ? made : made.fill(fill, form);
    }
    static allocUnsafe(size) { return Bytes.alloc(size); }
    static allocUnsafeSlow(size) { return Bytes.alloc(size); }
    static isBuffer(value) { return isBuffer(value); }
    static isEncoding(name) { return typeof name === "string" && ENCODINGS[name.toLowerCase()] !== undefined; }
    static byteLength(value, form) { return typeof value === "string" ? encoding(form).bytes(value).length : value.byteLength; }
    static compare(a, b) {
      const length = Math.min(a.length, b.length);
      for (let i = 0; i < length; i++) if (a[i] !== b[i]) return a[i] < b[i] ? -1 : 1;
      return Math.sign(a.length - b.length);
    }
    static concat(list, total = list.reduce((sum, one) => sum + one.length, 0)) {
      const joined = new Bytes(total);
      let at = 0;
      for (const one of list) {
        joined.set(one.length > total - at ? Uint8Array.prototype.subarray.call(one, 0, Math.max(0, total - at)) : one, Math.min(at, total));
        at += one.length;
      }
      return joined;
    }
    static get [Symbol.species]() { return Bytes; }

    toString(form, start = 0, end = this.length) {
      const part = start > 0 || end < this.length ? Uint8Array.prototype.subarray.call(this, Math.max(0, start), Math.max(0, end)) : this;
      return encoding(form).text(part);
    }
    toLocaleString(form, start, end) { return this.toString(form, start, end); }
    toJSON() { return { type: "Buffer", data: Array.from(this) }; }
    equals(other) { return this === other || Bytes.compare(this, other) === 0; }
    compare(other, start = 0, end = other.length, ownStart = 0, ownEnd = this.length) {
      return Bytes.compare(this.subarray(ownStart, ownEnd), Uint8Array.prototype.subarray.call(other, start, end));
    }
    slice(start, end) { return this.subarray(start, end); }
    copy(target, at = 0, start = 0, end = this.length) {
      const part = this.subarray(start, Math.min(end, start + Math.max(0, target.length - at)));
      target.set(part, at);
      return part.length;
    }
    write(text, at = 0, length, form) {
      if (typeof at === "string") [at, form] = [0, at];
      else if (typeof length === "string") [length, form] = [undefined, length];
      let bytes = encoding(form).bytes(text);
      const room = Math.min(length ?? Infinity, this.length - at);
      if (bytes.length > room) {
        // No half of a character is written.
        let end = room;
        if (encoding(form) === utf8) while (end > 0 && (bytes[end] & 0xc0) === 0x80) end--;
        bytes = bytes.slice(0, end);
      }
      this.set(bytes, at);
      return bytes.length;
    }
    fill(value, start = 0, end = this.length, form) {
      if (typeof start === "string") [start, form] = [0, start];
      else if (typeof end === "string") [end, form] = [this.length, end];
      const pattern = typeof value === "number" || typeof value === "boolean" ? [value & 255] : asBytes(value, form);
      if (pattern.length > 0) for (let i = start; i < end; i++) this[i] = pattern[(i - start) % pattern.length];
      return this;
    }
    indexOf(value, from, form) { return search(this, value, from, form, 1); }
    lastIndexOf(value, from, form) { return search(this, value, from, form, -1); }
    includes(value, from, form) { return this.indexOf(value, from, form) !== -1; }
    swap16() { return swap(this, 2); }
    swap32() { return swap(this, 4); }
    swap64() { return swap(this, 8); }
    get parent() { return this.buffer; }
    get offset() { return this.byteOffset; }
    readUIntLE(at, n) { let value = 0; for (let i = n - 1; i >= 0; i--) value = value * 256 + this[at + i]; return value; }
    readUIntBE(at, n) { let value = 0; for (let i = 0; i < n; i++) value = value * 256 + this[at + i]; return value; }
    readIntLE(at, n) { return signed(this.readUIntLE(at, n), n); }
    readIntBE(at, n) { return signed(this.readUIntBE(at, n), n); }
    writeUIntLE(value, at, n) { for (let i = 0; i < n; i++, value = Math.floor(value / 256)) this[at + i] = value & 255; return at + n; }
    writeUIntBE(value, at, n) { for (let i = n - 1; i >= 0; i--, value = Math.floor(value / 256)) this[at + i] = value & 255; return at + n; }
    writeIntLE(value, at, n) { return this.writeUIntLE(value, at, n); }
    writeIntBE(value, at, n) { return this.writeUIntBE(value, at, n); }
  }

  const signed = (value, n) => (value >= 2 ** (8 * n - 1) ? value - 2 ** (8 * n) : value);

  function search(bytes, value, from, form, step) {
    if (typeof from === "string") [from, form] = [undefined, from];
    const wanted = typeof value === "number" ? [value & 255] : asBytes(value, form);
    const last = bytes.length - wanted.length;
    let i = from === undefined || Number.isNaN(+from) ? (step > 0 ? 0 : last) : Math.trunc(from);
    if (i < 0) i += bytes.length;
    if (step > 0) i = Math.max(0, i);
    else i = Math.min(i, last);
    for (; i >= 0 && i <= last; i += step) {
      let same = 0;
      while (same < wanted.length && bytes[i + same] === wanted[same]) same++;
      if (same === wanted.length) return i;
    }
    return -1;
  }

  function swap(bytes, size) {
    if (bytes.length % size !== 0) throw coded(new RangeError(`Buffer size must be a multiple of ${size * 8}-bits`), "ERR_INVALID_BUFFER_SIZE");
    for (let i = 0; i < bytes.length; i += size) Uint8Array.prototype.subarray.call(bytes, i, i + size).reverse();
    return bytes;
  }

  // readInt16LE, writeDoubleBE and so on, with the checks of range that Node makes.
  const NUMBERS = [["Int8", 1], ["UInt8", 1], ["Int16", 2], ["UInt16", 2], ["Int32", 4], ["UInt32", 4], ["Float", 4], ["Double", 8], ["BigInt64", 8], ["BigUInt64", 8]];
  for (const [name, size] of NUMBERS) {
    const access = { Float: "Float32", Double: "Float64", BigUInt64: "BigUint64" }[name] ?? name.replace("UInt", "Uint");
    const integer = /^U?Int/.test(name);
    const [low, high] = name[0] === "U" ? [0, 2 ** (8 * size) - 1] : [-(2 ** (8 * size - 1)), 2 ** (8 * size - 1) - 1];
    const check = (bytes, at) => {
      if (typeof at !== "number") throw wrongType("offset", "of type number", at);
      if (Number.isInteger(at) && at >= 0 && at + size <= bytes.length) return;
      const text = bytes.length < size ? "Attempt to access memory outside buffer bounds" : `The value of "offset" is out of range. It must be >= 0 and <= ${bytes.length - size}. Received ${at}`;
      throw coded(new RangeError(text), bytes.length < size ? "ERR_BUFFER_OUT_OF_BOUNDS" : "ERR_OUT_OF_RANGE");
    };
    const view = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (const [suffix, little] of size === 1 ? [["", true]] : [["LE", true], ["BE", false]]) {
      const methods = {
        [`read${name}${suffix}`](at = 0) {
          check(this, at);
          return view(this)[`get${access}`](at, little);
        },
        [`write${name}${suffix}`](value, at = 0) {
          if (integer && (value < low || value > high)) {
            throw coded(new RangeError(`The value of "value" is out of range. It must be >= ${low} and <= ${high}. Received ${value}`), "ERR_OUT_OF_RANGE");
          }
          check(this, at);
          view(this)[`set${access}`](at, value, little);
          return at + size;
        },
      };
      for (const method in methods) {
        const alias = method.replace("UInt", "Uint");
        for (const known of new Set([method, alias])) {
          Object.defineProperty(Bytes.prototype, known, { value: methods[method], writable: true, configurable: true });
        }
      }
    }
  }

  function Buffer(value, second, third) {
    return typeof value === "number" ? Bytes.alloc(value) : Bytes.from(value, second, third);
  }
  Object.defineProperty(Bytes, "name", { value: "Buffer" });
  Object.setPrototypeOf(Buffer, Bytes);
  Buffer.prototype = Bytes.prototype;
  Object.defineProperty(Bytes.prototype, "constructor", { value: Buffer, writable: true, configurable: true });
  Buffer.poolSize = 8192;

  class TextEncoder {
    get encoding() { return "utf-8"; }
    encode(text = "") { return Uint8Array.from(utf8Bytes(Text(text))); }
    encodeInto(text, target) {
      let [read, written] = [0, 0];
      for (const character of Text(text)) {
        const bytes = utf8Bytes(character);
        if (written + bytes.length > target.length) break;
        target.set(bytes, written);
        [read, written] = [read + character.length, written + bytes.length];
      }
      return { read, written };
    }
  }

  const DECODERS = { __proto__: null, "utf-8": utf8, "utf-16le": utf16, "windows-1252": latin1 };
  const LABELS = { __proto__: null, utf8: "utf-8", "unicode-1-1-utf-8": "utf-8", "utf-16": "utf-16le", ucs2: "utf-16le", latin1: "windows-1252", ascii: "windows-1252", "iso-8859-1": "windows-1252" };

  class TextDecoder {
    #name;
    #held = [];
    constructor(label = "utf-8", { fatal = false, ignoreBOM = false } = {}) {
      const name = Text(label).trim().toLowerCase();
      this.#name = LABELS[name] ?? name;
      if (!(this.#name in DECODERS)) throw coded(new RangeError(`The "${label}" encoding is not supported`), "ERR_ENCODING_NOT_SUPPORTED");
      Object.defineProperty(this, "fatal", { value: Boolean(fatal) });
      Object.defineProperty(this, "ignoreBOM", { value: Boolean(ignoreBOM) });
    }
    get encoding() { return this.#name; }
    decode(input = new Uint8Array(), { stream = false } = {}) {
      const bytes = ArrayBuffer.isView(input) ? new Uint8Array(input.buffer, input.byteOffset, input.byteLength) : new Uint8Array(input);
      let all = this.#held.length > 0 ? [...this.#held, ...bytes] : bytes;
      this.#held = [];
      if (stream && this.#name === "utf-8") {
        const keep = unfinished(all);
        [all, this.#held] = [Array.prototype.slice.call(all, 0, all.length - keep), Array.prototype.slice.call(all, all.length - keep)];
      }
      const fail = () => {
        throw coded(new TypeError("The encoded data was not valid for encoding utf-8"), "ERR_ENCODING_INVALID_ENCODED_DATA");
      };
      const text = this.#name === "utf-8" ? utf8Text(all, this.fatal ? fail : undefined) : DECODERS[this.#name].text(all);
      return !this.ignoreBOM && text.charCodeAt(0) === 0xfeff ? text.slice(1) : text;
    }
  }

  // The number of bytes at the end that begin a character without ending it.
  function unfinished(bytes) {
    for (let back = 1; back <= Math.min(3, bytes.length); back++) {
      const b = bytes[bytes.length - back];
      if ((b & 0xc0) !== 0x80) return (b >= 0xf0 ? 4 : b >= 0xe0 ? 3 : b >= 0xc2 ? 2 : 1) > back ? back : 0;
    }
    return 0;
  }

  function invalidCharacter() {
    const Failure = typeof DOMException === "function" ? DOMException : Error;
    return new Failure("Invalid character", "InvalidCharacterError");
  }
  function btoa(text) {
    text = Text(text);
    for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) > 255) throw invalidCharacter();
    return base64Text(latin1.bytes(text), false);
  }
  function atob(text) {
    text = Text(text).replace(/[\t\n\f\r ]/g, "");
    if (text.length % 4 === 0) text = text.replace(/={1,2}$/, "");
    if (text.length % 4 === 1 || /[^A-Za-z0-9+/]/.test(text)) throw invalidCharacter();
    return latin1.text(base64Bytes(text));
  }

  return { Buffer, TextEncoder, TextDecoder, atob, btoa };
})
