// Runs a candidate's tests under Node in a scope that the candidate cannot reach, with an assert that it cannot change. Prints
// the nonce, which comes by standard input and exists nowhere else, once they have reached their end.
"use strict";
const fs = require("node:fs");
const vm = require("node:vm");
const assert = require("node:assert");
const { apply } = Reflect;
const { writeSync } = fs;
// Bytes outside of the heap, of which no snapshot or debugger shows a text.
const nonce = fs.readFileSync(0);
// The candidate may add to assert, and cannot replace a part of it, by whatever name either side calls it.
for (const f of [assert, assert.strict]) {
  for (const key of Reflect.ownKeys(f)) Object.defineProperty(f, key, { writable: false, configurable: false });
}
const pristine = { __proto__: null, assert, "assert/strict": assert.strict };
const { replace } = String.prototype;
const own = (name) => pristine[apply(replace, String(name), [/^node:/, ""])] ?? require(name);
const [candidate, tests] = ["candidate.js", "tests.js"].map((name) => fs.readFileSync(name, "utf8"));
for (const name of ["candidate.js", "tests.js", "guarded_node.js"]) fs.writeFileSync(name, "");
// A function of the tests shows no source, so that the candidate finds no expected value in it.
const { toString } = Function.prototype;
const { includes } = String.prototype;
Function.prototype.toString = function () {
  const text = apply(toString, this, []);
  return apply(includes, tests, [text]) && !apply(includes, candidate, [text]) ? "function () { [native code] }" : text;
};
const names = ["exports", "require", "module", "__filename", "__dirname"];
const importModuleDynamically = vm.constants?.USE_MAIN_CONTEXT_DEFAULT_LOADER;
const outer = vm.compileFunction(candidate + tests, names, { filename: "file.js", importModuleDynamically });
const program = { exports: {} };
const inner = apply(outer, program.exports, [program.exports, require, program, "file.js", "."]);
inner(own);
writeSync(1, nonce);
