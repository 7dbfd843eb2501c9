// Node's `path` on systems other than Windows. Evaluates to a function of the natives that returns the module.
((natives) => {
  "use strict";
  const { isArray } = Array;
  const fault = (name, wanted, value) =>
    Object.assign(new TypeError(`The "${name}" argument must be of type ${wanted}. Received ${shown(value)}`), { code: "ERR_INVALID_ARG_TYPE" });
  function shown(value) {
    if (value === null || value === undefined) return String(value);
    if (typeof value === "function") return `function ${value.name}`;
    if (typeof value === "object") return value.constructor?.name ? `an instance of ${value.constructor.name}` : "[Object: null prototype] {}";
    return `type ${typeof value} (${typeof value === "bigint" ? `${value}n` : typeof value === "string" ? `'${value}'` : String(value)})`;
  }
  const check = (value, name = "path") => {
    if (typeof value !== "string") throw fault(name, "string", value);
  };
  // Resolves "." and ".."; the text has no slash at either end.
  function resolved(text, above) {
    const parts = [];
    for (const part of text.split("/")) {
      if (part === "" || part === ".") continue;
      if (part !== "..") parts.push(part);
      else if (parts.length > 0 && parts.at(-1) !== "..") parts.pop();
      else if (above) parts.push(part);
    }
    return parts.join("/");
  }
  // Removes the slashes at the end, but none before `from`.
  function stripped(text, from) {
    let end = text.length;
    while (end > from && text[end - 1] === "/") end--;
    return text.slice(0, end);
  }
  const afterSlash = (text) => text.slice(text.lastIndexOf("/") + 1);
  function extension(base) {
    const dot = base.lastIndexOf(".");
    return dot <= 0 || base === ".." ? "" : base.slice(dot);
  }

  const path = {
    sep: "/", delimiter: ":",
    resolve(...parts) {
      let text = "";
      for (let i = parts.length - 1; i >= 0 && text[0] !== "/"; i--) {
        check(parts[i], `paths[${i}]`);
        if (parts[i] !== "") text = `${parts[i]}/${text}`;
      }
      return `/${resolved(text, false)}`;
    },
    normalize(text) {
      check(text);
      const absolute = text[0] === "/";
      const inner = resolved(text, !absolute);
      const slash = text.at(-1) === "/" ? "/" : "";
      if (inner === "") return absolute ? "/" : `.${slash}`;
      return `${absolute ? "/" : ""}${inner}${slash}`;
    },
    isAbsolute(text) {
      check(text);
      return text[0] === "/";
    },
    join(...parts) {
      for (const part of parts) check(part);
      return path.normalize(parts.filter((part) => part !== "").join("/"));
    },
    relative(from, to) {
      check(from, "from");
      check(to, "to");
      if (from === to) return "";
      const [start, goal] = [from, to].map((text) => path.resolve(text).split("/").filter((part) => part !== ""));
      let common = 0;
      while (common < start.length && start[common] === goal[common]) common++;
      return [...start.slice(common).map(() => ".."), ...goal.slice(common)].join("/");
    },
    toNamespacedPath: (text) => text,
    dirname(text) {
      check(text);
      if (text === "") return ".";
      const short = stripped(text, 1);
      const slash = short.lastIndexOf("/");
      if (slash > 0) return text[0] === "/" && slash === 1 ? "//" : short.slice(0, slash);
      return text[0] === "/" ? "/" : ".";
    },
    basename(text, suffix) {
      if (suffix !== undefined) check(suffix, "suffix");
      check(text);
      const short = stripped(text, 0);
      const base = afterSlash(short);
      if (!suffix || suffix.length > text.length) return base;
      if (suffix === text) return "";
      if (suffix === base) return base;
      // As Node does: a name that the suffix swallows keeps the slashes behind it.
      if (suffix.endsWith(base)) return base + text.slice(short.length);
      return base.endsWith(suffix) ? base.slice(0, -suffix.length) : base;
    },
    extname(text) {
      check(text);
      return extension(afterSlash(stripped(text, 0)));
    },
    format(parts) {
      if (parts === null || typeof parts !== "object" || isArray(parts)) throw fault("pathObject", "object", parts);
      const folder = parts.dir || parts.root;
      const ext = parts.ext ? (parts.ext[0] === "." ? parts.ext : `.${parts.ext}`) : "";
      const base = parts.base || `${parts.name || ""}${ext}`;
      if (!folder) return base;
      return folder === parts.root ? `${folder}${base}` : `${folder}/${base}`;
    },
    parse(text) {
      check(text);
      const root = text[0] === "/" ? "/" : "";
      const short = stripped(text, root.length);
      const slash = short.indexOf("/", root.length) < 0 ? -1 : short.lastIndexOf("/");
      const base = short.slice(slash < 0 ? root.length : slash + 1);
      // As Node does: right below the root, ".." has an extension.
      const ext = base === ".." && root && slash < 0 ? "." : extension(base);
      return { root, dir: slash < 0 ? root : short.slice(0, slash), base, ext, name: base.slice(0, base.length - ext.length) };
    },
    matchesGlob: () => natives.needsNode("path.matchesGlob"),
    win32: new Proxy({}, { get: () => natives.needsNode("path.win32") }),
    posix: null,
    _makeLong: null,
  };
  path.posix = path;
  path._makeLong = path.toNamespacedPath;
  return path;
})
