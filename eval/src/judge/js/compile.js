// Compiles the programs `FOLDER/file.ts` of the working folder, each as `tsc --target esnext file.ts` does alone, in one process.
// For each, `FOLDER/result.json` says how it ended.
//
// Two things make that fast, and neither changes a verdict: the files of the language's library are read once, and they are
// not checked again for a program that declares none of their names, since nothing in them can then mean something else.
// Arguments: the compiler's library, and the folders.
"use strict";
const fs = require("fs");
const path = require("path");
const [library, ...folders] = process.argv.slice(2);
const ts = require(library);
const root = process.cwd();
const known = new Map();

function host(options) {
  const host = ts.createCompilerHost(options);
  const read = host.getSourceFile;
  const folder = path.dirname(host.getDefaultLibFileName(options));
  host.getSourceFile = (name, ...rest) => {
    if (path.dirname(name) !== folder) return read(name, ...rest);
    if (!known.has(name)) known.set(name, read(name, ...rest));
    return known.get(name);
  };
  return host;
}

// Whether what a file declares, or draws in, can change what the library's files mean. Names are bound once a checker exists.
function concerns(file, libraries) {
  const drawn = [file.libReferenceDirectives, file.typeReferenceDirectives, file.referencedFiles];
  if (drawn.some((directives) => directives.length > 0)) return true;
  if (ts.isExternalModule(file)) return file.moduleAugmentations.length > 0;
  return [...file.locals.keys()].some((name) => libraries.some((library) => library.locals.has(name)));
}

// Has the compiler check and write the one file that is not the library's, where that is enough.
function narrow(program) {
  program.getTypeChecker();
  const ours = (file) => !program.isSourceFileDefaultLibrary(file);
  const [file, ...others] = program.getSourceFiles().filter(ours);
  const libraries = program.getSourceFiles().filter((file) => !ours(file));
  if (!file || others.length > 0 || concerns(file, libraries)) return;
  const { getSemanticDiagnostics: check, emit } = program;
  program.getSemanticDiagnostics = (target = file, ...rest) => check(target, ...rest);
  program.emit = (target = file, ...rest) => emit(target, ...rest);
}

function compile() {
  const { options, fileNames } = ts.parseCommandLine(["--target", "esnext", "file.ts"]);
  const program = ts.createProgram({ rootNames: fileNames, options, host: host(options) });
  narrow(program);
  const said = [];
  const plain = {
    // As deep as the folder of a program that is compiled alone, so that the library is as far away.
    getCurrentDirectory: () => root,
    getNewLine: () => ts.sys.newLine,
    getCanonicalFileName: (name) => name,
  };
  const report = (diagnostic) => said.push(ts.formatDiagnostic(diagnostic, plain));
  const status = ts.emitFilesAndReportErrorsAndGetExitStatus(program, report);
  return { status, said: said.join("") };
}

for (const folder of folders) {
  process.chdir(path.join(root, folder));
  const started = process.hrtime.bigint();
  const result = compile();
  result.seconds = Number(process.hrtime.bigint() - started) / 1e9;
  fs.writeFileSync("result.json", JSON.stringify(result));
}
