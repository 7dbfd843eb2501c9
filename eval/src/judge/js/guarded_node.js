// Runs a candidate's tests under Node in a scope that the candidate cannot reach, with an assert from before it ran. Prints
// the nonce, which comes by standard input and exists nowhere else, once they have reached their end.
"use strict";
const fs = require("node:fs");
const vm = require("node:vm");
const assert = require("node:assert");
const { apply } = Reflect;
const { writeSync } = fs;
const nonce = fs.readFileSync(0, "utf8");
const pristine = Object.assign((...args) => apply(assert, undefined, args), assert);
const own = (name) => (name === "assert" || name === "node:assert" ? pristine : require(name));
const [candidate, tests] = [fs.readFileSync("candidate.js", "utf8"), fs.readFileSync("tests.js", "utf8")];
const names = ["exports", "require", "module", "__filename", "__dirname"];
const outer = vm.compileFunction(`${candidate}\n;return function (require) {${tests}\n}`, names, { filename: "file.js" });
const program = { exports: {} };
const inner = apply(outer, program.exports, [program.exports, require, program, "file.js", "."]);
inner(own);
writeSync(1, nonce);
