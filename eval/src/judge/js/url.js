// URL and URLSearchParams of the URL standard, whose parsing is a native. Evaluates to a function of the natives that returns
// both. natives: parseUrl(text, base) and setUrl(href, part, value) return the parts of a URL by name, or undefined.
((natives) => {
  "use strict";
  const Text = String;
  const toUsv = (value) => Text(value).toWellFormed();
  const CODED = /[^A-Za-z0-9*\-._ ]/gu;
  const encode = (text) =>
    toUsv(text).replace(CODED, (c) => encodeURIComponent(c).replace(/[!'()~]/g, (d) => `%${d.charCodeAt(0).toString(16).toUpperCase()}`)).replaceAll(" ", "+");
  // Invalid escapes stay, and invalid UTF-8 becomes U+FFFD.
  function decode(text, decoder) {
    text = text.replaceAll("+", " ");
    if (!text.includes("%")) return text;
    return text.replace(/(?:%[0-9a-f]{2})+/gi, (run) => decoder.decode(Uint8Array.from(run.slice(1).split("%"), (hex) => parseInt(hex, 16))));
  }
  const decoder = new natives.TextDecoder("utf-8", { ignoreBOM: true });

  class URLSearchParams {
    #list = [];
    #changed = () => {};
    constructor(init = "") {
      if (init !== null && typeof init === "object" && typeof init[Symbol.iterator] === "function") {
        for (const pair of init) {
          const [...both] = pair;
          if (both.length !== 2) throw Object.assign(new TypeError("Each query pair must be an iterable [name, value] tuple"), { code: "ERR_INVALID_TUPLE" });
          this.#list.push(both.map(toUsv));
        }
      } else if (init !== null && typeof init === "object") {
        for (const key of Reflect.ownKeys(init)) this.#list.push([toUsv(key), toUsv(init[key])]);
      } else this.#list = URLSearchParams.#parse(toUsv(init));
    }
    static #parse(query) {
      const parts = query.replace(/^\?/, "").split("&").filter((part) => part !== "");
      return parts.map((part) => {
        const at = part.indexOf("=");
        return (at < 0 ? [part, ""] : [part.slice(0, at), part.slice(at + 1)]).map((half) => decode(half, decoder));
      });
    }
    // The parameters of a URL's query; `changed` takes the query that an update makes.
    static bind(query, changed) {
      const params = new URLSearchParams(query);
      params.#changed = changed;
      return params;
    }
    static reset(params, query) { params.#list = URLSearchParams.#parse(query); }
    #update(list) {
      this.#list = list;
      this.#changed(this.toString());
    }
    get size() { return this.#list.length; }
    append(name, value) { this.#update([...this.#list, [toUsv(name), toUsv(value)]]); }
    delete(name, value) { this.#update(this.#list.filter(([n, v]) => n !== toUsv(name) || (value !== undefined && v !== toUsv(value)))); }
    get(name) { return this.#list.find(([n]) => n === toUsv(name))?.[1] ?? null; }
    getAll(name) { return this.#list.filter(([n]) => n === toUsv(name)).map(([, v]) => v); }
    has(name, value) { return this.#list.some(([n, v]) => n === toUsv(name) && (value === undefined || v === toUsv(value))); }
    set(name, value) {
      const at = this.#list.findIndex(([n]) => n === toUsv(name));
      if (at < 0) return this.append(name, value);
      const kept = this.#list.filter(([n], i) => i <= at || n !== toUsv(name));
      kept[at] = [toUsv(name), toUsv(value)];
      this.#update(kept);
    }
    sort() { this.#update([...this.#list].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))); }
    forEach(f, self) { for (const [name, value] of this.#list) Reflect.apply(f, self, [value, name, this]); }
    *entries() { for (const [name, value] of this.#list) yield [name, value]; }
    *keys() { for (const [name] of this.#list) yield name; }
    *values() { for (const [, value] of this.#list) yield value; }
    [Symbol.iterator]() { return this.entries(); }
    toString() { return this.#list.map(([name, value]) => `${encode(name)}=${encode(value)}`).join("&"); }
    get [Symbol.toStringTag]() { return "URLSearchParams"; }
  }
  const { bind, reset } = URLSearchParams;
  delete URLSearchParams.bind;
  delete URLSearchParams.reset;

  class URL {
    #parts;
    #params;
    constructor(input, base) {
      this.#parts = natives.parseUrl(toUsv(input), base === undefined ? undefined : toUsv(base));
      if (this.#parts === undefined) throw Object.assign(new TypeError("Invalid URL"), { code: "ERR_INVALID_URL", input: Text(input) });
    }
    static canParse(input, base) { return natives.parseUrl(toUsv(input), base === undefined ? undefined : toUsv(base)) !== undefined; }
    static of(self) { return self.#parts; }
    static assign(self, part, value) {
      const parts = natives.setUrl(self.#parts.href, part, toUsv(value));
      if (parts === undefined && part === "href") throw Object.assign(new TypeError("Invalid URL"), { code: "ERR_INVALID_URL", input: Text(value) });
      self.#parts = parts ?? self.#parts;
      if (self.#params !== undefined && ["href", "search"].includes(part)) reset(self.#params, self.#parts.search);
    }
    get searchParams() {
      return (this.#params ??= bind(this.#parts.search, (query) => {
        this.#parts = natives.setUrl(this.#parts.href, "search", query) ?? this.#parts;
      }));
    }
    toString() { return this.#parts.href; }
    toJSON() { return this.#parts.href; }
    get [Symbol.toStringTag]() { return "URL"; }
  }
  const { of, assign } = URL;
  delete URL.of;
  delete URL.assign;
  for (const part of ["href", "origin", "protocol", "username", "password", "host", "hostname", "port", "pathname", "search", "hash"]) {
    Object.defineProperty(URL.prototype, part, {
      get() { return of(this)[part]; },
      set: part === "origin" ? undefined : function (value) { assign(this, part, value); },
      enumerable: true, configurable: true,
    });
  }
  return { URL, URLSearchParams };
})
