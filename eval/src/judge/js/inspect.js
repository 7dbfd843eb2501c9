// Node's `util.inspect` and `util.format` for values of the language: primitives, arrays, objects, classes, functions, maps,
// sets, typed arrays, dates, regular expressions, boxes. Evaluates to a function of `needs(name)`, which is told of a text that
// may be another than Node's (errors, promises, iterators, buffers, Node's own objects), and of `isForeign(value)`, which knows
// the latter; returns { inspect, format, formatWithOptions }.
((needs, isForeign) => {
  "use strict";
  const { is, keys: ownKeys, getPrototypeOf, getOwnPropertyDescriptor, getOwnPropertySymbols, hasOwn } = Object;
  const { isArray } = Array;
  const { apply } = Reflect;
  const Text = String;
  const enumerable = (object, key) => apply(Object.prototype.propertyIsEnumerable, object, [key]);
  const CUSTOM = Symbol.for("nodejs.util.inspect.custom");
  const DEFAULTS = {
    showHidden: false, depth: 2, colors: false, customInspect: true, showProxy: false, maxArrayLength: 100, maxStringLength: 10000,
    breakLength: 80, compact: 3, sorted: false, getters: false, numericSeparator: false,
  };
  const BUILT_IN = new Set(Reflect.ownKeys(globalThis).filter((name) => typeof name === "string" && /^[A-Z][a-zA-Z0-9]+$/.test(name)));
  const plural = (count, noun) => `${count} ${noun}${count > 1 ? "s" : ""}`;
  const repeat = (count) => " ".repeat(count);

  // Returns true if a method that only objects of one kind have accepts the value.
  const accepts = (method, ...args) => (value) => {
    try {
      apply(method, value, args);
      return true;
    } catch {
      return false;
    }
  };
  const get = (object, name) => getOwnPropertyDescriptor(object, name).get;
  const isMap = accepts(Map.prototype.has, 0);
  const isSet = accepts(Set.prototype.has, 0);
  const isDate = accepts(Date.prototype.getTime);
  const isRegExp = accepts(get(RegExp.prototype, "source"));
  const typedTag = get(getPrototypeOf(Uint8Array.prototype), Symbol.toStringTag);
  const isTyped = (value) => apply(typedTag, value, []) !== undefined;
  const BOXES = [Number, String, Boolean, BigInt, Symbol].map((type) => ({ type: type.name, valueOf: type.prototype.valueOf, is: accepts(type.prototype.valueOf) }));
  const UNKNOWN = ["Error", "ArrayBuffer", "SharedArrayBuffer", "DataView", "Promise", "WeakSet", "WeakMap", "WeakRef"].map((name) => globalThis[name]).filter(Boolean);
  const isArguments = (value) => Object.prototype.toString.call(value) === "[object Arguments]" && !(Symbol.toStringTag in value);

  // A text in quotes that it does not hold, if there are such, with escapes.
  const ESCAPED = { 8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r", 39: "\\'", 92: "\\\\" };
  function escape(match) {
    const code = match.charCodeAt(0);
    return ESCAPED[code] ?? (code < 256 ? `\\x${code.toString(16).toUpperCase().padStart(2, "0")}` : `\\u${code.toString(16)}`);
  }
  const UNSAFE = /[\x00-\x1f'\\\x7f-\x9f]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;
  const UNSAFE_IN_OTHERS = /[\x00-\x1f\\\x7f-\x9f]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;
  function quoted(text) {
    let quote = "'";
    if (text.includes("'")) {
      if (!text.includes('"')) quote = '"';
      else if (!text.includes("`") && !text.includes("${")) quote = "`";
    }
    return quote + text.replace(quote === "'" ? UNSAFE : UNSAFE_IN_OTHERS, escape) + quote;
  }

  const number = (value) => (is(value, -0) ? "-0" : Text(value));
  function primitive(ctx, value) {
    if (typeof value === "bigint") return `${value}n`;
    if (typeof value === "number") return number(value);
    if (typeof value === "symbol") return Text(value);
    if (typeof value !== "string") return `${value}`;
    const cut = value.length - ctx.maxStringLength;
    const rest = cut > 0 ? `... ${plural(cut, "more character")}` : "";
    const text = cut > 0 ? value.slice(0, ctx.maxStringLength) : value;
    if (text.length <= 16 || text.length <= ctx.breakLength - ctx.indentation - 4) return quoted(text) + rest;
    return text.split(/(?<=\n)/).map(quoted).join(` +\n${repeat(ctx.indentation + 2)}`) + rest;
  }

  // Returns the name of the nearest constructor in the chain of prototypes; null without any prototype.
  function constructorName(value) {
    for (let object = value; object !== null; object = getPrototypeOf(object)) {
      const type = getOwnPropertyDescriptor(object, "constructor")?.value;
      if (typeof type !== "function" || type.name === "") continue;
      try {
        if (value instanceof type) return Text(type.name);
      } catch {
        // No constructor.
      }
    }
    if (getPrototypeOf(value) !== null) needs();
    return null;
  }
  function prefix(name, tag, fallback, size = "") {
    const shown = name === null ? `[${fallback}${size}: null prototype] ` : `${name}${size} `;
    return tag !== "" && tag !== (name ?? fallback) ? `${shown}[${tag}] ` : shown;
  }
  function tagOf(value) {
    const tag = value[Symbol.toStringTag];
    return typeof tag !== "string" || enumerable(value, Symbol.toStringTag) ? "" : tag;
  }
  const keysOf = (value) => [...ownKeys(value), ...getOwnPropertySymbols(value).filter((key) => enumerable(value, key))];
  const isIndex = (key) => typeof key === "string" && /^(0|[1-9]\d*)$/.test(key) && +key < 2 ** 32 - 1;

  function functionText(value, name, tag) {
    const source = Function.prototype.toString.call(value);
    const shownTag = tag !== "" && name !== tag ? ` [${tag}]` : "";
    if (source.startsWith("class") && source.endsWith("}")) {
      const own = (hasOwn(value, "name") && value.name) || "(anonymous)";
      const type = name !== "Function" && name !== null ? ` [${name}]` : "";
      const parent = name === null ? "[null prototype]" : getPrototypeOf(value).name;
      return `[class ${own}${type}${shownTag}${parent ? ` extends ${parent}` : ""}]`;
    }
    const kind = Object.prototype.toString.call(value).slice(8, -1);
    const type = ["GeneratorFunction", "AsyncFunction", "AsyncGeneratorFunction"].includes(kind) ? kind : "Function";
    const own = value.name === "" ? " (anonymous)" : `: ${value.name}`;
    const other = name !== type && name !== null ? ` ${name}` : "";
    return `[${type}${name === null ? " (null prototype)" : ""}${own}]${other}${shownTag}`;
  }

  function boxText(ctx, box, value, name, tag) {
    const type = box.type === name ? "" : name === null ? " (null prototype)" : ` (${name})`;
    return `[${box.type}${type}: ${primitive(ctx, apply(box.valueOf, value, []))}]${tag !== "" && tag !== name ? ` [${tag}]` : ""}`;
  }

  // Describes an object: the text before its braces, the braces, its keys and how its items are listed. Without `braces`, the
  // text before them is all if there are no keys.
  function describe(ctx, value) {
    const [name, tag] = [constructorName(value), tagOf(value)];
    if (isForeign(value) || UNKNOWN.some((type) => value instanceof type)) needs();
    // Collections without prototype do not tell their size.
    if (name === null && (isSet(value) || isMap(value) || isTyped(value))) needs();
    const of = (fallback, size) => prefix(name, tag, fallback, size);
    const withItems = (before, close, keys, list) => ({ before: "", open: before, close, keys, list, empty: `${before}${close}` });
    if (Symbol.iterator in value || name === null) {
      if (isArray(value)) {
        const open = name !== "Array" || tag !== "" ? `${of("Array", `(${value.length})`)}[` : "[";
        const rest = keysOf(value).filter((key) => !isIndex(key));
        return { ...withItems(open, "]", rest, listArray), isList: true, hasItems: value.length > 0 };
      }
      if (isSet(value)) return { ...withItems(`${of("Set", `(${value.size})`)}{`, "}", keysOf(value), listSet), hasItems: value.size > 0 };
      if (isMap(value)) return { ...withItems(`${of("Map", `(${value.size})`)}{`, "}", keysOf(value), listMap), hasItems: value.size > 0 };
      if (isTyped(value)) {
        const rest = keysOf(value).filter((key) => !isIndex(key));
        const open = `${of(apply(typedTag, value, []), `(${value.length})`)}[`;
        return { ...withItems(open, "]", rest, listTyped), isList: true, hasItems: value.length > 0 };
      }
    }
    const keys = keysOf(value);
    const text = (before) => ({ before, open: "{", close: "}", keys, empty: before });
    if (typeof value === "function") return text(functionText(value, name, tag));
    if (name === "Object" && isArguments(value)) return withItems("[Arguments] {", "}", keys);
    if (name === "Object") return withItems(tag === "" ? "{" : `${of("Object")}{`, "}", keys);
    const named = (kind, shown) => text(of(kind) === `${kind} ` ? shown : of(kind) + shown);
    if (isRegExp(value)) return { ...named("RegExp", RegExp.prototype.toString.call(name === null ? new RegExp(value) : value)), atAnyDepth: true };
    if (isDate(value)) return named("Date", Text(Number.isNaN(Date.prototype.getTime.call(value)) ? Date.prototype.toString.call(value) : Date.prototype.toISOString.call(value)));
    const box = BOXES.find((box) => box.is(value));
    if (box) {
      if (box.type === "String") keys.splice(0, value.length);
      return text(boxText(ctx, box, value, name, tag));
    }
    // Iterators and generators show what no program can see.
    if (typeof value.next === "function" && Symbol.iterator in value) needs();
    return withItems(`${of("Object")}{`, "}", keys);
  }

  function format(ctx, value, depth) {
    if (value === null || (typeof value !== "object" && typeof value !== "function")) return primitive(ctx, value);
    const custom = ctx.customInspect && value[CUSTOM];
    if (typeof custom === "function" && custom !== inspect && !(value.constructor && value.constructor.prototype === value)) {
      const { indentation, seen, circular, innermost, ...options } = ctx;
      const left = ctx.depth === null ? null : ctx.depth - depth;
      const shown = apply(custom, value, [left, { ...options, stylize: (text) => `${text}` }, inspect]);
      if (shown !== value) return typeof shown === "string" ? shown.replaceAll("\n", `\n${repeat(ctx.indentation)}`) : format(ctx, shown, depth);
    }
    if (ctx.seen.includes(value)) {
      if (!ctx.circular.has(value)) ctx.circular.set(value, ctx.circular.size + 1);
      return `[Circular *${ctx.circular.get(value)}]`;
    }
    return formatObject(ctx, value, depth);
  }

  function formatObject(ctx, value, depth) {
    const about = describe(ctx, value);
    if (about.keys.length === 0 && !about.hasItems) return about.empty;
    const tooDeep = depth > ctx.depth && ctx.depth !== null;
    if (tooDeep && about.atAnyDepth) return about.before;
    if (tooDeep) {
      const name = constructorName(value);
      const shown = prefix(name, tagOf(value), isArray(value) ? "Array" : "Object").slice(0, -1);
      return name === null ? shown : `[${shown}]`;
    }
    ctx.seen.push(value);
    ctx.innermost = depth + 1;
    const output = about.list ? about.list(ctx, value, depth + 1) : [];
    const items = output.length;
    for (const key of about.keys) output.push(property(ctx, value, depth + 1, key, false));
    ctx.seen.pop();
    if (ctx.circular.has(value)) about.before = `<ref *${ctx.circular.get(value)}>${about.before ? ` ${about.before}` : ""}`;
    if (ctx.sorted) {
      const order = ctx.sorted === true ? undefined : ctx.sorted;
      if (about.isList) output.push(...output.splice(items).sort(order));
      else output.sort(order);
    }
    return joined(ctx, output, about, depth + 1, value);
  }

  const listed = (ctx, count) => Math.min(Math.max(0, ctx.maxArrayLength), count);
  const more = (output, count) => {
    if (count > 0) output.push(`... ${plural(count, "more item")}`);
    return output;
  };
  function listArray(ctx, value, depth) {
    const most = listed(ctx, value.length);
    const output = [];
    let next = 0;
    while (next < value.length && output.length < most) {
      if (hasOwn(value, next)) output.push(property(ctx, value, depth, Text(next++), true));
      else {
        const start = next;
        next = nextIndex(value, start);
        output.push(`<${plural(next - start, "empty item")}>`);
      }
    }
    return more(output, value.length - next);
  }
  // Returns the next index that an array has; its length after the last one.
  function nextIndex(array, from) {
    for (let i = from; i < Math.min(array.length, from + 1000); i++) if (hasOwn(array, i)) return i;
    const next = ownKeys(array).find((key) => isIndex(key) && +key >= from);
    return next === undefined ? array.length : +next;
  }
  function listTyped(ctx, value) {
    const most = listed(ctx, value.length);
    const show = (item) => primitive(ctx, item);
    return more(Array.from({ length: most }, (_, i) => show(value[i])), value.length - most);
  }
  const listCollection = (show) => (ctx, value, depth) => {
    const output = [];
    ctx.indentation += 2;
    for (const item of value) {
      if (output.length >= listed(ctx, value.size)) break;
      output.push(show(ctx, item, depth));
    }
    ctx.indentation -= 2;
    return more(output, value.size - output.length);
  };
  const listSet = listCollection(format);
  const listMap = listCollection((ctx, [key, item], depth) => `${format(ctx, key, depth)} => ${format(ctx, item, depth)}`);

  function property(ctx, object, depth, key, isItem) {
    const found = getOwnPropertyDescriptor(object, key) ?? { value: object[key], enumerable: true };
    const shown = propertyValue(ctx, object, depth, found);
    if (isItem) return shown;
    if (typeof key === "symbol") return `[${Text(key).replace(UNSAFE, escape)}]: ${shown}`;
    if (key === "__proto__") return `['__proto__']: ${shown}`;
    return `${/^[a-zA-Z_][a-zA-Z_0-9]*$/.test(key) ? key : quoted(key)}: ${shown}`;
  }
  function propertyValue(ctx, object, depth, found) {
    if (found.value !== undefined) {
      ctx.indentation += 2;
      const shown = format(ctx, found.value, depth);
      ctx.indentation -= 2;
      return shown;
    }
    if (found.get !== undefined) {
      if (ctx.getters) needs();
      return found.set !== undefined ? "[Getter/Setter]" : "[Getter]";
    }
    return found.set !== undefined ? "[Setter]" : "undefined";
  }

  // Joins the items on one line where they are short and not nested too deeply, else on lines of their own.
  function joined(ctx, output, about, depth, value) {
    const before = about.before ? `${about.before} ` : "";
    const items = output.length;
    if (ctx.compact >= 1) {
      if (about.isList && items > 6) output = inColumns(ctx, output, value);
      if (ctx.innermost - depth < ctx.compact && items === output.length && fits(ctx, output, about)) {
        const line = output.join(", ");
        if (!line.includes("\n")) return `${before}${about.open} ${line} ${about.close}`;
      }
    }
    const indentation = `\n${repeat(ctx.indentation)}`;
    return `${before}${about.open}${indentation}  ${output.join(`,${indentation}  `)}${indentation}${about.close}`;
  }
  function fits(ctx, output, { before, open }) {
    const start = output.length + ctx.indentation + open.length + before.length + 10;
    const length = output.reduce((sum, item) => sum + item.length, output.length + start);
    return length <= ctx.breakLength && !before.includes("\n");
  }

  // Groups the short items of a list into lines of equal columns, so that they form about a square.
  function inColumns(ctx, output, value) {
    const count = output.length - (ctx.maxArrayLength < output.length ? 1 : 0);
    const lengths = output.slice(0, count).map((item) => width(item) + 2);
    const total = lengths.reduce((sum, length) => sum + length, 0);
    const longest = Math.max(2, ...lengths);
    if (longest * 3 + ctx.indentation >= ctx.breakLength || (total / longest <= 5 && longest > 8)) return output;
    const biased = Math.max(longest - 3 - Math.sqrt(longest - total / output.length), 1);
    const square = Math.round(Math.sqrt(2.5 * biased * count) / biased);
    const columns = Math.min(square, Math.floor((ctx.breakLength - ctx.indentation) / longest), ctx.compact * 4, 15);
    if (columns <= 1) return output;
    const widths = Array.from({ length: columns }, (_, column) => lengths.reduce((most, length, i) => (i % columns === column ? Math.max(most, length) : most), 2));
    const toTheRight = value === undefined || output.every((_, i) => typeof value[i] === "number" || typeof value[i] === "bigint");
    const lines = [];
    for (let start = 0; start < count; start += columns) {
      const end = Math.min(start + columns, count);
      let line = "";
      for (let i = start; i < end; i++) {
        const last = i === end - 1;
        const item = last ? output[i] : `${output[i]}, `;
        const room = widths[i - start] + output[i].length + 2 - lengths[i];
        if (toTheRight) line += item.padStart(last ? room - 2 : room);
        else line += last ? item : item.padEnd(room);
      }
      lines.push(line);
    }
    if (count < output.length) lines.push(output[count]);
    return lines;
  }
  // Returns the columns of a terminal that a text fills; that of characters beyond Latin is not known here.
  function width(text) {
    if (/[^\x20-\x7e\xa0-\u02ff]/.test(text)) needs();
    return text.length;
  }

  function inspect(value, options, depth, colors) {
    const ctx = { ...DEFAULTS, indentation: 0, seen: [], circular: new Map(), innermost: 0 };
    if (depth !== undefined) ctx.depth = depth;
    if (colors !== undefined) ctx.colors = colors;
    if (typeof options === "boolean") ctx.showHidden = options;
    else for (const key of ownKeys(options ?? {})) {
      if (hasOwn(DEFAULTS, key)) ctx[key] = options[key];
      else if (key === "stylize") needs();
    }
    if (ctx.showHidden || ctx.colors || ctx.showProxy || ctx.numericSeparator || ctx.compact === true) needs();
    ctx.maxArrayLength ??= Infinity;
    ctx.maxStringLength ??= Infinity;
    return format(ctx, value, 0);
  }
  Object.assign(inspect, { custom: CUSTOM, defaultOptions: { ...DEFAULTS } });

  // Returns true if an object's text is made by the language, not by the program.
  function hasOwnText(value) {
    const toPrimitive = typeof value[Symbol.toPrimitive] === "function";
    if (typeof value.toString !== "function" && !toPrimitive) return false;
    const makes = (object) => (typeof value.toString === "function" && hasOwn(object, "toString")) || (toPrimitive && hasOwn(object, Symbol.toPrimitive));
    let object = value;
    while (!makes(object)) object = getPrototypeOf(object);
    if (object === value) return true;
    const type = getOwnPropertyDescriptor(object, "constructor")?.value;
    return typeof type !== "function" || !BUILT_IN.has(type.name);
  }
  function json(value) {
    try {
      return JSON.stringify(value);
    } catch (error) {
      // A circular structure.
      if (error instanceof TypeError && !/BigInt/.test(error.message) && isCircular(value, [])) return "[Circular]";
      throw error;
    }
  }
  const isCircular = (value, above) =>
    typeof value === "object" && value !== null && (above.includes(value) || Object.values(value).some((item) => isCircular(item, [...above, value])));
  const numeric = (read) => (value) => (typeof value === "bigint" ? `${value}n` : typeof value === "symbol" ? "NaN" : number(read(value)));
  const MARKS = {
    __proto__: null,
    s(value, options) {
      if (typeof value === "number" || typeof value === "bigint") return numeric(Number)(value);
      const plain = typeof value !== "object" || value === null || hasOwnText(value);
      return plain ? Text(value) : inspect(value, { ...options, compact: 3, colors: false, depth: 0 });
    },
    j: json,
    d: numeric(Number),
    i: numeric(parseInt),
    f: (value) => (typeof value === "symbol" ? "NaN" : number(parseFloat(value))),
    O: inspect,
    o: (value, options) => inspect(value, { ...options, showHidden: true, showProxy: true, depth: 4 }),
    c: () => "",
  };
  function formatWithOptions(options, ...values) {
    if (options === null || typeof options !== "object") throw Object.assign(new TypeError(`The "inspectOptions" argument must be of type object.`), { code: "ERR_INVALID_ARG_TYPE" });
    const show = (value) => (typeof value === "string" ? value : inspect(value, options));
    if (typeof values[0] !== "string" || values.length === 1) return values.map(show).join(" ");
    const [first, ...rest] = values;
    const text = first.replace(/%([sjdifoOc%])/g, (mark, kind) => {
      if (kind === "%") return "%";
      return rest.length === 0 ? mark : MARKS[kind](rest.shift(), options);
    });
    return [text, ...rest.map(show)].join(" ");
  }
  return { inspect, format: (...values) => formatWithOptions({}, ...values), formatWithOptions };
})
