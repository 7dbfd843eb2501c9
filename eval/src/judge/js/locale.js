// What depends on a language: comparison of texts in ICU's order (by a native), numbers, dates and plurals in American English,
// which is Node's language in the sandbox. Everything else is named as a need of Node. Evaluates to a function of the natives.
((natives) => {
  "use strict";
  const { collate, needsNode } = natives;
  const Text = String;
  const define = (object, name, value) => Object.defineProperty(object, name, { value, writable: true, configurable: true });
  const range = (value, what) => new RangeError(`Value ${value} out of range for ${what}`);

  function english(locales, what) {
    const [first] = locales === undefined ? [undefined] : [locales].flat();
    if (first !== undefined && !/^en(-US)?$/.test(Text(first))) needsNode(what);
  }

  // Fails by name if an option is used that is not listed.
  function only(options, names, what) {
    for (const name of Object.keys(options ?? {})) if (options[name] !== undefined && !names.includes(name)) needsNode(what);
    return options ?? {};
  }

  // Comparison of texts.

  function comparer(locales, options, what) {
    const { sensitivity = "variant", numeric = false, ...rest } = options ?? {};
    only(rest, ["usage", "localeMatcher"], what);
    if (rest.usage !== undefined && rest.usage !== "sort") needsNode(what);
    if (!["base", "accent", "case", "variant"].includes(sensitivity)) throw range(sensitivity, "Intl.Collator options property sensitivity");
    const [locale = "und"] = locales === undefined ? [] : [locales].flat().map(Text);
    return (a, b) => collate(Text(a), Text(b), locale, sensitivity, Boolean(numeric)) ?? needsNode(what);
  }

  define(String.prototype, "localeCompare", {
    localeCompare(that, locales, options) {
      if (this === null || this === undefined) throw new TypeError("String.prototype.localeCompare called on null or undefined");
      return comparer(locales, options, "String.prototype.localeCompare")(this, that);
    },
  }.localeCompare);
  for (const [name, plain] of [["toLocaleUpperCase", String.prototype.toUpperCase], ["toLocaleLowerCase", String.prototype.toLowerCase]]) {
    define(String.prototype, name, { [name](locales) {
      const [first = "en"] = locales === undefined ? [] : [locales].flat();
      if (/^(az|el|lt|tr)/.test(Text(first))) needsNode(`String.prototype.${name}`);
      return Reflect.apply(plain, this, []);
    } }[name]);
  }

  // Numbers.

  // The digits before and behind the point, rounded half away from zero as ICU does it on the shortest decimal form.
  function rounded(value, digits) {
    const [mantissa, exponent = "0"] = Text(value).split("e");
    let [whole, fraction = ""] = mantissa.split(".");
    const shift = +exponent;
    if (shift > 0) {
      fraction = fraction.padEnd(shift, "0");
      [whole, fraction] = [whole + fraction.slice(0, shift), fraction.slice(shift)];
    } else if (shift < 0) {
      whole = whole.padStart(1 - shift, "0");
      [whole, fraction] = [whole.slice(0, shift), whole.slice(shift) + fraction];
    }
    const kept = fraction.slice(0, digits).padEnd(digits, "0");
    const up = (fraction[digits] ?? "0") >= "5";
    const all = Text(BigInt(whole + kept) + (up ? 1n : 0n)).padStart(digits + 1, "0");
    return [all.slice(0, all.length - digits), digits > 0 ? all.slice(-digits) : ""];
  }

  const SYMBOLS = { __proto__: null, USD: "$", EUR: "€", GBP: "£", JPY: "¥", INR: "₹", CAD: "CA$", AUD: "A$", CNY: "CN¥", KRW: "₩", BRL: "R$", MXN: "MX$" };
  const NUMBER_OPTIONS = ["style", "currency", "minimumFractionDigits", "maximumFractionDigits", "minimumIntegerDigits", "useGrouping", "localeMatcher", "numberingSystem"];

  function numberFormat(locales, options, what) {
    english(locales, what);
    const given = only(options, NUMBER_OPTIONS, what);
    const { style = "decimal", currency, useGrouping = true, minimumIntegerDigits = 1 } = given;
    if (!["decimal", "percent", "currency"].includes(style) || (given.numberingSystem ?? "latn") !== "latn") needsNode(what);
    if (!["boolean", "undefined"].includes(typeof useGrouping)) needsNode(what);
    if (style === "currency" && currency === undefined) throw new TypeError("Currency code is required with currency style.");
    const code = Text(currency).toUpperCase();
    if (style === "currency" && SYMBOLS[code] === undefined) needsNode(what);
    const [few, many] = style === "currency" ? (["JPY", "KRW"].includes(code) ? [0, 0] : [2, 2]) : style === "percent" ? [0, 0] : [0, 3];
    for (const name of ["minimumFractionDigits", "maximumFractionDigits"]) {
      const digits = given[name];
      if (digits !== undefined && !(+digits >= 0 && +digits <= 20)) throw new RangeError(`${name} value is out of range.`);
    }
    let least = given.minimumFractionDigits === undefined ? undefined : Math.floor(given.minimumFractionDigits);
    let most = given.maximumFractionDigits === undefined ? undefined : Math.floor(given.maximumFractionDigits);
    if (least !== undefined && most !== undefined && least > most) throw new RangeError("maximumFractionDigits value is out of range.");
    least ??= Math.min(few, most ?? few);
    most ??= Math.max(many, least);
    return (value) => {
      const number = typeof value === "bigint" ? value : Number(value);
      if (Number.isNaN(number)) return style === "currency" ? `${SYMBOLS[code]}NaN` : style === "percent" ? "NaN%" : "NaN";
      const negative = number < 0 || Object.is(number, -0);
      let text = Text(number).replace(/^-/, "");
      if (text === "Infinity") text = "∞";
      else {
        if (style === "percent") text = text.includes("e") ? Text(Math.abs(Number(number)) * 100) : rounded(text, 30).join(".").replace(/\.(..)/, "$1.");
        let [whole, fraction] = rounded(text, most);
        while (fraction.length > least && fraction.endsWith("0")) fraction = fraction.slice(0, -1);
        whole = whole.replace(/^0+(?=.)/, "").padStart(minimumIntegerDigits, "0");
        if (useGrouping) whole = whole.replace(/\B(?=(\d{3})+$)/g, ",");
        text = fraction === "" ? whole : `${whole}.${fraction}`;
      }
      if (style === "percent") text += "%";
      if (style === "currency") text = SYMBOLS[code] + text;
      return negative ? `-${text}` : text;
    };
  }

  for (const [type, name] of [[Number, "Number"], [BigInt, "BigInt"]]) {
    define(type.prototype, "toLocaleString", {
      toLocaleString(locales, options) {
        return numberFormat(locales, options, `${name}.prototype.toLocaleString`)(Reflect.apply(type.prototype.valueOf, this, []));
      },
    }.toLocaleString);
  }

  // Dates, in the default form alone.

  const day = (date) => `${date.getMonth() + 1}/${date.getDate()}/${date.getFullYear()}`;
  const two = (n) => Text(n).padStart(2, "0");
  const clock = (date) => `${date.getHours() % 12 || 12}:${two(date.getMinutes())}:${two(date.getSeconds())} ${date.getHours() < 12 ? "AM" : "PM"}`;
  const DATE_FORMS = { toLocaleDateString: day, toLocaleTimeString: clock, toLocaleString: (date) => `${day(date)}, ${clock(date)}` };
  function dateForm(name, locales, options, what) {
    english(locales, what);
    const { timeZone = "UTC" } = only(options, ["timeZone"], what);
    if (timeZone !== "UTC") needsNode(what);
    return (date) => (Number.isNaN(date.getTime()) ? "Invalid Date" : date.getFullYear() > 0 ? DATE_FORMS[name](date) : needsNode(what));
  }
  for (const name in DATE_FORMS) {
    define(Date.prototype, name, { [name](locales, options) {
      return dateForm(name, locales, options, `Date.prototype.${name}`)(this);
    } }[name]);
  }

  // Intl.

  const locale = (locales) => Text([locales].flat()[0] ?? "en-US");
  function NumberFormat(locales, options) {
    const format = numberFormat(locales, options, "Intl.NumberFormat");
    return service(this, NumberFormat, { format, resolvedOptions: () => ({ locale: locale(locales), numberingSystem: "latn", ...options }) });
  }
  function Collator(locales, options) {
    const compare = comparer(locales, options, "Intl.Collator");
    return service(this, Collator, { compare, resolvedOptions: () => ({ locale: locale(locales), usage: "sort", ...options }) });
  }
  function DateTimeFormat(locales, options) {
    const format = dateForm("toLocaleDateString", locales, options, "Intl.DateTimeFormat");
    return service(this, DateTimeFormat, {
      format: (date = new Date()) => {
        const day = new Date(date);
        if (Number.isNaN(day.getTime())) throw new RangeError("Invalid time value");
        return format(day);
      },
      resolvedOptions: () => ({ locale: locale(locales), calendar: "gregory", numberingSystem: "latn", timeZone: "UTC" }),
    });
  }
  function PluralRules(locales, options) {
    english(locales, "Intl.PluralRules");
    const { type = "cardinal" } = only(options, ["type", "localeMatcher"], "Intl.PluralRules");
    const ordinal = (n) => (n % 100 > 10 && n % 100 < 14 ? "other" : ({ 1: "one", 2: "two", 3: "few" }[n % 10] ?? "other"));
    const select = (n) => (type === "ordinal" ? ordinal(Math.abs(+n)) : Math.abs(+n) === 1 ? "one" : "other");
    return service(this, PluralRules, { select, resolvedOptions: () => ({ locale: locale(locales), type }) });
  }
  function ListFormat(locales, options) {
    english(locales, "Intl.ListFormat");
    const { type = "conjunction", style = "long" } = only(options, ["type", "style", "localeMatcher"], "Intl.ListFormat");
    if (style !== "long" || !["conjunction", "disjunction"].includes(type)) needsNode("Intl.ListFormat");
    const word = type === "conjunction" ? "and" : "or";
    const format = (list) => {
      const items = [...list];
      const last = items.pop();
      return items.length === 0 ? last ?? "" : `${items.join(", ")}${items.length > 1 ? "," : ""} ${word} ${last}`;
    };
    return service(this, ListFormat, { format });
  }
  function service(self, type, methods) {
    const made = self instanceof type ? self : Object.create(type.prototype);
    for (const name in methods) define(made, name, methods[name]);
    return made;
  }

  const Intl = { getCanonicalLocales: (locales) => (locales === undefined ? [] : [locales].flat().map(Text)) };
  for (const type of [NumberFormat, Collator, DateTimeFormat, PluralRules, ListFormat]) {
    type.supportedLocalesOf = (locales) => [locales].flat();
    define(Intl, type.name, type);
  }
  for (const name of ["RelativeTimeFormat", "Segmenter", "DisplayNames", "Locale", "supportedValuesOf"]) {
    define(Intl, name, function () { needsNode(`Intl.${name}`); });
  }
  Object.defineProperty(Intl, Symbol.toStringTag, { value: "Intl", configurable: true });
  define(globalThis, "Intl", Intl);
})
