// Runs a candidate's tests guarded, under Node: in a scope that the candidate cannot reach into, with an assert from
// before it ran. The word that proves it comes by standard input and exists nowhere else.
"use strict";
const fs = require("node:fs");
const vm = require("node:vm");
const assert = require("node:assert");
const { apply } = Reflect;
const { writeSync } = fs;
const word = fs.readFileSync(0, "utf8");
const pristine = Object.assign((...args) => apply(assert, undefined, args), assert);
const own = (name) => (name === "assert" || name === "node:assert" ? pristine : require(name));
const [candidate, tests] = [fs.readFileSync("candidate.js", "utf8"), fs.readFileSync("tests.js", "utf8")];
const names = ["exports", "require", "module", "__filename", "__dirname"];
const outer = vm.compileFunction(`${candidate}\n;return function (require) {${tests}\n}`, names, { filename: "file.js" });
const program = { exports: {} };
const inner = apply(outer, program.exports, [program.exports, require, program, "file.js", "."]);
inner(own);
writeSync(1, word);
