// Node's `string_decoder`. Evaluates to a function of Buffer that returns the module.
((Buffer) => {
  "use strict";
  const coded = (error, code) => Object.assign(error, { code });
  const NAMES = {
    __proto__: null, utf8: "utf8", "utf-8": "utf8", ucs2: "utf16le", "ucs-2": "utf16le", utf16le: "utf16le", "utf-16le": "utf16le",
    latin1: "latin1", binary: "latin1", base64: "base64", base64url: "base64url", hex: "hex", ascii: "ascii",
  };

  // Counts the bytes at the end that begin a character and do not end it, and the bytes that it lacks.
  const UNFINISHED = {
    __proto__: null,
    utf8(bytes) {
      for (let count = 1; count <= Math.min(4, bytes.length); count++) {
        const byte = bytes[bytes.length - count];
        if ((byte & 0xc0) === 0x80) continue;
        const length = (byte & 0xe0) === 0xc0 ? 2 : (byte & 0xf0) === 0xe0 ? 3 : (byte & 0xf8) === 0xf0 ? 4 : 0;
        return count < length ? [count, length - count] : [0, 0];
      }
      return [0, 0];
    },
    utf16le(bytes) {
      if (bytes.length % 2 === 1) return [1, 1];
      const surrogate = bytes.length > 1 && (bytes[bytes.length - 1] & 0xfc) === 0xd8;
      return surrogate ? [2, 2] : [0, 0];
    },
    base64: (bytes) => (bytes.length % 3 === 0 ? [0, 0] : [bytes.length % 3, 3 - (bytes.length % 3)]),
  };
  UNFINISHED.base64url = UNFINISHED.base64;

  class StringDecoder {
    #kept = Buffer.alloc(0);
    #missing = 0;
    constructor(encoding) {
      const given = encoding || "utf8";
      this.encoding = NAMES[String(given).toLowerCase()];
      if (this.encoding === undefined) throw coded(new TypeError(`Unknown encoding: ${given}`), "ERR_UNKNOWN_ENCODING");
    }
    get lastNeed() { return this.#missing; }
    get lastTotal() { return this.#kept.length + this.#missing; }
    write(data) {
      if (typeof data === "string") return data;
      if (!ArrayBuffer.isView(data)) throw coded(new TypeError('The "buf" argument must be an instance of Buffer, TypedArray, or DataView.'), "ERR_INVALID_ARG_TYPE");
      return this.#decode(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
    }
    #decode(bytes) {
      const unfinished = UNFINISHED[this.encoding];
      if (unfinished === undefined) return bytes.toString(this.encoding);
      let text = "";
      if (this.#missing > 0) {
        let taken = Math.min(this.#missing, bytes.length);
        if (this.encoding === "utf8") {
          const other = bytes.subarray(0, taken).findIndex((byte) => (byte & 0xc0) !== 0x80);
          // A character that is broken off is complete, and invalid.
          if (other >= 0) [taken, this.#missing] = [other, other];
        }
        this.#kept = Buffer.concat([this.#kept, bytes.subarray(0, taken)]);
        this.#missing -= taken;
        bytes = bytes.subarray(taken);
        if (this.#missing > 0) return "";
        text = this.#flush();
      }
      const [count, missing] = unfinished(bytes);
      [this.#kept, this.#missing] = [Buffer.from(bytes.subarray(bytes.length - count)), missing];
      return text + bytes.subarray(0, bytes.length - count).toString(this.encoding);
    }
    #flush() {
      const text = this.#kept.toString(this.encoding);
      [this.#kept, this.#missing] = [Buffer.alloc(0), 0];
      return text;
    }
    text(data, offset) {
      [this.#kept, this.#missing] = [Buffer.alloc(0), 0];
      return this.write(data.slice(offset));
    }
    end(data) {
      const text = data === undefined ? "" : this.write(data);
      if (this.encoding === "utf16le") this.#kept = this.#kept.subarray(0, this.#kept.length & ~1);
      return text + this.#flush();
    }
  }
  return { StringDecoder };
})
