// Compiles the programs `FOLDER/file.ts` of the working folder in one process, each as `tsc --target esnext file.ts` does alone.
// Writes the result of each to `FOLDER/result.json`: { status, diagnostics, seconds }.
//
// Two optimizations make this fast, and neither changes a verdict: the files of the language's library are read once, and
// they are not checked again for a program that declares none of their names, because such a program cannot change their meaning.
// Arguments: the path of the compiler's library, and the folders.
"use strict";
const fs = require("fs");
const path = require("path");
const [library, ...folders] = process.argv.slice(2);
const ts = require(library);
const root = process.cwd();
const librarySources = new Map();

function createHost(options) {
  const host = ts.createCompilerHost(options);
  const read = host.getSourceFile;
  const folder = path.dirname(host.getDefaultLibFileName(options));
  host.getSourceFile = (name, ...rest) => {
    if (path.dirname(name) !== folder) return read(name, ...rest);
    if (!librarySources.has(name)) librarySources.set(name, read(name, ...rest));
    return librarySources.get(name);
  };
  return host;
}

// Returns true if the declarations or references of a file can change the meaning of the library's files. Names are bound
// once a type checker exists.
function affectsLibrary(file, libraries) {
  const references = [file.libReferenceDirectives, file.typeReferenceDirectives, file.referencedFiles];
  if (references.some((directives) => directives.length > 0)) return true;
  if (ts.isExternalModule(file)) return file.moduleAugmentations.length > 0;
  return [...file.locals.keys()].some((name) => libraries.some((library) => library.locals.has(name)));
}

// Restricts the check and the output to the one file that is not the library's, if that does not change the result.
function restrictToProgram(program) {
  program.getTypeChecker();
  const isOurs = (file) => !program.isSourceFileDefaultLibrary(file);
  const [file, ...others] = program.getSourceFiles().filter(isOurs);
  const libraries = program.getSourceFiles().filter((file) => !isOurs(file));
  if (!file || others.length > 0 || affectsLibrary(file, libraries)) return;
  const { getSemanticDiagnostics: check, emit } = program;
  program.getSemanticDiagnostics = (target = file, ...rest) => check(target, ...rest);
  program.emit = (target = file, ...rest) => emit(target, ...rest);
}

function compile() {
  const { options, fileNames } = ts.parseCommandLine(["--target", "esnext", "file.ts"]);
  const program = ts.createProgram({ rootNames: fileNames, options, host: createHost(options) });
  restrictToProgram(program);
  const diagnostics = [];
  const format = {
    // As deep as the folder of a program that is compiled alone, so that relative paths to the library are the same.
    getCurrentDirectory: () => root,
    getNewLine: () => ts.sys.newLine,
    getCanonicalFileName: (name) => name,
  };
  const report = (diagnostic) => diagnostics.push(ts.formatDiagnostic(diagnostic, format));
  const status = ts.emitFilesAndReportErrorsAndGetExitStatus(program, report);
  return { status, diagnostics: diagnostics.join("") };
}

for (const folder of folders) {
  process.chdir(path.join(root, folder));
  const started = process.hrtime.bigint();
  const result = compile();
  result.seconds = Number(process.hrtime.bigint() - started) / 1e9;
  fs.writeFileSync("result.json", JSON.stringify(result));
}
