//! Programs with the status that Node 20 gives them. All are right where a judge behaves as Node does.

use codelsi_eval::judge::Status;
use codelsi_eval::judge::Status::{AssertionError, Exception, Ok, ReferenceError, Timeout};
use codelsi_eval::problem::CandidateProgram;

/// The beginning of every program.
const HEAD: &str = "declare var require: any; declare var process: any; declare var Buffer: any;\nconst assert = require('node:assert');\n";

/// Returns a program whose tests are its last line.
pub fn program(text: &str) -> CandidateProgram {
    let text = format!("{HEAD}{text}\n");
    let tests_at = text.trim_end().rfind('\n').unwrap_or(0) + 1;
    CandidateProgram { text, tests_at }
}

/// Programs that `embedded` and `node` judge alike.
pub const LIKE_NODE: &[(Status, &str)] = &[
    // Promises that nobody handles.
    (Exception, "function f() { Promise.reject(new Error('x')); return 1; }\nassert.equal(f(), 1);"),
    (Exception, "async function f() { throw 'text'; }\nf();"),
    (
        AssertionError,
        "async function f() { return 2; }\n(async () => { assert.deepEqual(await f(), 3); })();",
    ),
    (ReferenceError, "async function f() { return missing; }\nf();"),
    (Ok, "function f() { const p = Promise.reject(new Error('x')); p.catch(() => {}); return 1; }\nf();"),
    (Ok, "const p = Promise.reject(1);\nprocess.nextTick(() => p.catch(() => {}));"),
    (Ok, "const p = Promise.reject(1);\nPromise.resolve().then(() => p.catch(() => {}));"),
    (Exception, "const p = Promise.reject(1);\nsetTimeout(() => p.catch(() => {}), 1);"),
    (Exception, "const p = Promise.reject(1);\np.then(() => {});"),
    (Ok, "process.on('unhandledRejection', () => {});\nPromise.reject(1);"),
    (
        Ok,
        "const all = Promise.allSettled([Promise.reject(1)]);\nall.then((r: any) => assert.equal(r[0].reason, 1));",
    ),
    (Exception, "Promise.all([Promise.reject(new Error('a')), Promise.reject(new Error('b'))]);\n;"),
    (Exception, "const p = new Promise((_, reject) => setTimeout(() => reject(new Error('late')), 5));\n;"),
    (Exception, "setTimeout(async () => { throw new Error('in a timer'); }, 1);\n;"),
    (AssertionError, "async function f() { assert.equal(1, 2); }\nf().finally(() => {});"),
    // The order of ticks, reactions and timers.
    (
        Ok,
        "const order: string[] = []; setTimeout(() => order.push('timer'), 0); Promise.resolve().then(() => order.push('reaction')); process.nextTick(() => order.push('tick')); order.push('main');\nsetTimeout(() => assert.deepEqual(order, ['main', 'tick', 'reaction', 'timer']), 20);",
    ),
    // Comparators that are not consistent.
    (Ok, "const s = [3, 1, 2].sort((a, b) => (a > b) as any);\nassert.deepEqual(s, [3, 1, 2]);"),
    (Ok, "const s = [3, 1, 2].sort((a, b) => (a < b ? -1 : 1));\nassert.deepEqual(s, [1, 2, 3]);"),
    (Ok, "const s = [1, 2, 3, 4].sort(() => -1);\nassert.deepEqual(s, [4, 3, 2, 1]);"),
    (
        Ok,
        "const s = [5, , 3, undefined, 1].sort((a: any, b: any) => a - b);\nassert.ok(s.length === 5 && s[2] === 5 && 3 in s && !(4 in s));",
    ),
    (Ok, "const s = [5, 2, 9].toSorted((a, b) => b - a);\nassert.deepEqual(s, [9, 5, 2]);"),
    (
        Ok,
        "const s = Array.from({ length: 300 }, (_, i) => ({ k: i % 7, i })).sort((a, b) => a.k - b.k);\nassert.ok(s.every((x, i) => i === 0 || s[i - 1].k < x.k || s[i - 1].i < x.i));",
    ),
    // Recursion that is caught, and recursion that is deep and right.
    (
        Ok,
        "let name = ''; function f(n: number): number { return f(n + 1) + 1; } try { f(0); } catch (e: any) { name = e.constructor.name; }\nassert.equal(name, 'RangeError');",
    ),
    (
        Ok,
        "function f(n: number): number { return n === 0 ? 0 : 1 + f(n - 1); }\nassert.equal(f(8000), 8000);",
    ),
    (Exception, "function f(n: number): number { return n === 0 ? 0 : 1 + f(n - 1); }\nf(100000);"),
    (
        Ok,
        "class T { constructor(public next: T | null) {} depth(): number { return this.next ? 1 + this.next.depth() : 1; } }\nlet t: T | null = null; for (let i = 0; i < 6000; i++) t = new T(t); assert.equal(t!.depth(), 6000);",
    ),
    // More arguments than a bytecode counts.
    (
        Ok,
        "const big = Array.from({ length: 100000 }, (_, i) => i); const more: number[] = []; more.push(...big);\nassert.deepEqual([Math.max(...big), Math.min.apply(null, big), more.length], [99999, 0, 100000]);",
    ),
    (Exception, "const big = new Array(200000).fill(1);\nMath.max(...big);"),
    (
        Ok,
        "const o = { n: 2, f(...xs: number[]) { return this.n * xs.length; } }; const k = 'f';\nassert.deepEqual([o.f(...[1, 2]), o[k](...[1], ...[2, 3]), (o as any)?.f(...[1])], [4, 6, 2]);",
    ),
    // Bytes and texts.
    (
        Ok,
        "const b = Buffer.from('h\\u00e9\\u{1f600}');\nassert.deepEqual([b.toString('base64'), b.length, b.slice(1, 3).toString('hex'), Buffer.concat([b, b]).length], ['aMOp8J+YgA==', 7, 'c3a9', 14]);",
    ),
    (
        Ok,
        "const bytes = new TextEncoder().encode('\\u20ac');\nassert.deepEqual([[...bytes], new TextDecoder().decode(bytes), atob(btoa('hi'))], [[226, 130, 172], '\\u20ac', 'hi']);",
    ),
    (
        Ok,
        "declare var crypto: any; const h = (a: string) => require('crypto').createHash(a).update('abc').digest('hex').slice(0, 8);\nassert.deepEqual(['md5', 'sha1', 'sha256'].map(h), ['90015098', 'a9993e36', 'ba7816bf']);",
    ),
    (
        Ok,
        "const mac = require('crypto').createHmac('sha256', 'key').update('text').digest('base64').length;\nassert.equal(mac, 44);",
    ),
    // Paths, and what util writes.
    (
        Ok,
        "const path = require('path'); const at = path.parse('/a/b.tar.gz/');\nassert.deepEqual([path.join('a', '..', '/b//c.', '.'), path.relative('/a/b/c', '/a/d'), path.basename('x/y.ts', '.ts'), at.name, path.resolve('/a', '../b'), path.extname('.x'), path.dirname('/a//b')], ['b/c.', '../../d', 'y', 'b.tar', '/b', '', '/a/']);",
    ),
    (
        Ok,
        "const { StringDecoder } = require('node:string_decoder'); const d = new StringDecoder('utf8'); const parts = [[0x61, 0xe2], [0x82], [0xac, 0xf0, 0x9f]].map((bytes) => d.write(Buffer.from(bytes)));\nassert.deepEqual([...parts, d.end()], ['a', '', '\\u20ac', '\\ufffd']);",
    ),
    (
        Ok,
        "const util = require('util'); class P { x = 1; y = ['a', \"it's\"]; } const o: any = { m: new Map([[1, { d: { e: {} } }]]), n: null, f() {}, 'k-k': -0 }; o.self = o;\nassert.equal(util.inspect([new P(), o]), `[\\n  P { x: 1, y: [ 'a', \"it's\" ] },\\n  <ref *1> {\\n    m: Map(1) { 1 => [Object] },\\n    n: null,\\n    f: [Function: f],\\n    'k-k': -0,\\n    self: [Circular *1]\\n  }\\n]`);",
    ),
    (
        Ok,
        "const util = require('util');\nassert.deepEqual([util.format('%s %d%% %j %i', 'a', 4.5, { b: [1] }, '12px', [1, 'z'], 'end'), util.inspect(Array.from({ length: 9 }, (_, i) => i * i)), util.format('%s', [1n, { a: 1 }]), util.inspect('a\\nb')], [\"a 4.5% {\\\"b\\\":[1]} 12 [ 1, 'z' ] end\", '[\\n   0,  1,  4,  9, 16,\\n  25, 36, 49, 64\\n]', '[ 1n, [Object] ]', \"'a\\\\nb'\"]);",
    ),
    // A hash of what inspect and format make of values of all kinds.
    (
        Ok,
        r#"const util = require('util'); class A { x = 1; get g() { return 1; } static s = 2; } class B extends A { y = [undefined, null, , 3]; } const kept: any[] = [[1, 2, [3, [4, [5]]]], new B(), A, B, new (class extends Map<any, any> {})([[{ a: 1 }, 'b']]), new Set(['it\'s', 'a "b"', `it's "c"`]), Object.create(null), Object.assign(Object.create(null), { 'a-b': 1n }), [,'x',,,], Array.from({ length: 130 }, (_, i) => i * 37), Array.from({ length: 30 }, (_, i) => 'w'.repeat(i % 9)), new Date(5), /a\/b/gi, Object(1), Object('boxed'), Symbol('s'), -0, 'line one\nline two', '\x01\ud800', { [Symbol('k')]: 1, __x: { y: { z: { w: 1 } } }, get a() { return 1; }, set b(v: any) {} }, new Uint8Array([1, 2, 3]), () => 1, function named() {}, async () => 1, function* gen() {}, Math.max, { a: 'x'.repeat(60), b: 'y'.repeat(60) }, Object.assign([1, 2], { extra: true }), (function (...xs: any[]) { return arguments; })(1, 2), Math, JSON, { toString() { return 'own'; } }]; const texts = kept.flatMap((value) => [undefined, { depth: 0 }, { depth: 5, breakLength: 40 }, { compact: false }, { sorted: true, maxArrayLength: 2 }].map((options: any) => util.inspect(value, options)).concat(util.format('%s|%O|%d|%j', typeof value === 'function' ? 'f' : value, value, Number.isNaN(value) ? value : 1, 'j'), util.format(value, value))); let h = 0; for (const c of texts.join('\n')) h = (Math.imul(h, 31) + c.codePointAt(0)!) | 0;
assert.equal(h, -76039555);"#,
    ),
    // Addresses.
    (
        Ok,
        "declare var URL: any; const u = new URL('../b?x=1&y=a%20b#c', 'https://Me:pw@Example.com:443/a/d/'); u.searchParams.append('z', '\\u00e9 ');\nassert.deepEqual([u.href, u.port, u.searchParams.get('y')], ['https://Me:pw@example.com/a/b?x=1&y=a+b&z=%C3%A9+#c', '', 'a b']);",
    ),
    (Ok, "declare var URL: any;\nassert.throws(() => new URL('no address'), { code: 'ERR_INVALID_URL' });"),
    (
        Ok,
        "declare var URLSearchParams: any; const q = new URLSearchParams({ b: '2', a: '1' }); q.sort();\nassert.equal(String(q), 'a=1&b=2');",
    ),
    // Copies.
    (
        Ok,
        "declare var structuredClone: any; const a: any = { d: new Date(5), m: new Map([[1, { x: 1 }]]), u: undefined }; a.self = a; const c = structuredClone(a);\nassert.ok(c !== a && c.self === c && c.d.getTime() === 5 && c.m.get(1).x === 1 && 'u' in c);",
    ),
    (Exception, "declare var structuredClone: any;\nstructuredClone(() => 1);"),
    // Assertions about promises and errors.
    (
        Ok,
        "const bad = async () => { throw new TypeError('no way'); };\nassert.rejects(bad, { name: 'TypeError', message: /way/ }).then(() => assert.doesNotReject(async () => 1));",
    ),
    (AssertionError, "\nassert.rejects(async () => 1);"),
    (AssertionError, "\nassert.throws(() => { throw new TypeError('x'); }, RangeError);"),
    (AssertionError, "\nassert.ifError(new Error('x'));"),
    // Languages.
    (
        Ok,
        "const s = ['b', 'a', 'B', '\\u00e4', 'A', 'c', '_', '1'].sort((a, b) => a.localeCompare(b));\nassert.deepEqual(s, ['_', '1', 'a', 'A', '\\u00e4', 'b', 'B', 'c']);",
    ),
    (
        Ok,
        "const c = ['a10', 'a2', 'A1'].sort(new Intl.Collator('en', { numeric: true }).compare);\nassert.deepEqual([c, 'a'.localeCompare('\\u00c1', undefined, { sensitivity: 'base' })], [['A1', 'a2', 'a10'], 0]);",
    ),
    (
        Ok,
        "const n = [(1234567.891).toLocaleString(), (0.256).toLocaleString('en-US', { style: 'percent' }), new Intl.NumberFormat('en-US', { style: 'currency', currency: 'USD' }).format(-5.5)];\nassert.deepEqual(n, ['1,234,567.891', '26%', '-$5.50']);",
    ),
    // The last digits of Math: a hash of the results of all functions and of powers.
    (
        Ok,
        "const number = new Float64Array(1), bits = new Uint32Array(number.buffer); let s = 1; const random = () => ((s ^= s << 13), (s ^= s >>> 17), (s ^= s << 5), (s >>> 0) / 2 ** 32); const f = [...['acos', 'acosh', 'asin', 'asinh', 'atan', 'atan2', 'atanh', 'cbrt', 'cos', 'cosh', 'exp', 'expm1', 'hypot', 'log', 'log10', 'log1p', 'log2', 'pow', 'sin', 'sinh', 'tan', 'tanh'].map((name) => (Math as any)[name]), (x: number, y: number) => Math.abs(x) ** y, (x: number, y: number) => { let z = x; z **= Math.round(y); return z; }]; let h = 0;\nfor (let i = 0; i < 20000; i++) { const [x, y] = [(random() - 0.3) * 10 ** (i % 12 - 3), (random() - 0.5) * 20]; for (const g of f) { number[0] = g(x, y); h = (Math.imul(h, 31) + bits[0]) | 0; } } assert.equal(h, 563103748);",
    ),
    (
        Ok,
        "const m = [Math.hypot(3, NaN), Math.hypot(Infinity, NaN), Math.hypot(), Math.exp(1), Math.log10(1e-7), Math.log10(2000), Math.cosh(711), Math.sinh(-710), Math.asinh(0.7), 0.1 ** 8, Math.pow(1 / 3, -2), (-8) ** (1 / 3), Math.pow(1, Infinity), Math.cbrt(-0.001), Math.log(0), Math.sin(1e300)];\nassert.deepEqual(m, [NaN, Infinity, 0, 2.718281828459045, -7, 3.3010299956639813, Infinity, -1.1169973830808557e+308, 0.6526665660823557, 1.0000000000000005e-8, 9.000000000000002, NaN, NaN, -0.1, -Infinity, -0.8178819121159085]);",
    ),
    (
        Ok,
        "const o: any = { n: 3, s: '2', b: 2n, get g() { return { n: 2 }; } }; let calls = 0; const at = () => (calls++, o); at().n **= 2; o.s **= 3; o['b'] **= 10n; at()[calls > 5 ? 'x' : 'n'] **= 0.5;\nassert.deepEqual([o.n, o.s, String(o.b), calls, String((-2n) ** 3n), ([3] as any) ** 2], [3, 8, '1024', 2, '-8', 9]); assert.throws(() => (2n as any) ** 2, TypeError);",
    ),
    // Events and servers.
    (
        Ok,
        "const E = require('events'); const e = new E(); let n = 0; e.once('x', (k: number) => (n += k)); e.emit('x', 2); e.emit('x', 2);\nassert.equal(n, 2);",
    ),
    (Exception, "const server = require('http').createServer(() => {}); server.listen(0);\n;"),
    (Ok, "const server = require('net').createServer(); server.on('error', () => {}); server.listen(0);\n;"),
    // Namespaces.
    (
        Ok,
        "namespace C { export let n = 0; export function inc() { n++; return n; } }\nassert.deepEqual([C.inc(), C.inc(), C.n], [1, 2, 2]);",
    ),
    (
        Ok,
        "namespace C { export const one = () => 1; } namespace C { export const two = () => one() + 1; }\nassert.equal(C.two(), 2);",
    ),
    (
        Ok,
        "namespace A.B { export let [x, { y }] = [1, { y: 2 }]; export const sum = () => x + y; }\nA.B.x = 5; assert.equal(A.B.sum(), 7);",
    ),
    // Time.
    (Timeout, "\nsetInterval(() => {}, 1000);"),
];

/// Programs that `embedded` cannot run, and right under Node; they use a name of the table of what it lacks.
pub const NEED_NODE: &[&str] = &[
    "\nassert.equal((1234.5).toLocaleString('de-DE'), '1.234,5');",
    "\nassert.equal(new Date(0).toLocaleDateString('en-US', { month: 'long', timeZone: 'UTC' }), 'January');",
    "const zlib = require('zlib');\nassert.equal(zlib.gunzipSync(zlib.gzipSync('x')).toString(), 'x');",
    "const { inspect } = require('util');\nassert.equal(inspect(Promise.resolve(1)), 'Promise { 1 }');",
    "\nassert.equal(require('path').win32.join('a', 'b'), 'a\\\\b');",
    "declare var AbortController: any;\nassert.equal(new AbortController().signal.aborted, false);",
    "const big = new Array(70000).fill(1); const f = (...xs: number[]) => xs.length;\nassert.equal(f(...big), 70000);",
    "\nassert.equal([...new (Intl as any).Segmenter().segment('ab')].length, 2);",
];

/// Programs that lack nothing that they use, and fail or succeed by themselves.
pub const NEED_NOTHING: &[(Status, &str)] = &[
    (
        Ok,
        "let text = ''; try { text = (1).toLocaleString('de-DE'); } catch { text = '1'; }\nassert.equal(text, '1');",
    ),
    (AssertionError, "\nassert.equal((1234).toLocaleString(), '1234');"),
    (Exception, "\nthrow new Error('Intl.Segmenter needs Node');"),
];

/// Programs that are right, and whose parts a guarded run must join: none is an exploit.
pub const HONEST: &[&str] = &[
    // The candidate uses what the tests declare.
    "function f() { return new Box(2).twice(); }\nclass Box { constructor(private n: number) {} twice() { return 2 * this.n; } } assert.equal(f(), 4);",
    "function f() { return helper() + limit; }\nfunction helper() { return 1; } const limit = 2; assert.equal(f(), 3);",
    "function f(): Kind { return Kind.B; }\nenum Kind { A, B } assert.equal(f(), Kind.B);",
    "namespace C { export let n = 0; export function inc() { return ++n; } }\nassert.equal(C.inc(), 1);",
    "function f(this: any) { 'use strict'; return this; }\nassert.equal(f(), undefined);",
    "async function f() { return 1; }\n(async () => { assert.equal(await f(), 1); })();",
    // The candidate uses assert itself, and adds to it.
    "const { ok } = require('assert'); function f(n: number) { ok(n > 0); assert.strict.equal(typeof n, 'number'); return n; }\nassert.equal(f(1), 1);",
    "assert.near = (a: number, b: number) => assert.ok(Math.abs(a - b) < 1e-9); function f() { return 0.1 + 0.2; }\nassert.near(f(), 0.3); require('node:assert').near(f(), 0.3);",
    "function same(a: any, assert: any) { assert = a; return assert; }\nassert.equal(same(1, 2), 1);",
];

/// Wrong programs that end with exit code 0.
pub const DISHONEST: &[&str] = &[
    "function f() { process.exit(0); }\nassert.equal(f(), 1);",
    "function f() { process.on('uncaughtException', () => {}); return 2; }\nassert.equal(f(), 1);",
    "function f() { process.on('exit', () => { process.exitCode = 0; }); return 2; }\nassert.equal(f(), 1);",
    // An assert that the candidate's own part binds, or that the tests bind later, is replaced in part or as a whole.
    "(assert as any).deepEqual = () => {}; function f() { return 2; }\nassert.deepEqual(f(), 1);",
    "const a = require('assert'); a.equal = a.strict.equal = () => {}; function f() { return 2; }\nassert.equal(f(), 1);",
    "const a = require('assert'); a.deepEqual = a.deepStrictEqual; a.deepStrictEqual = () => {}; function f() { return [2]; }\nassert.deepStrictEqual(f(), [1]);",
    "Object.defineProperty(require('node:assert'), 'equal', { value: () => {} }); function f() { return 2; }\nassert.equal(f(), 1);",
    "Object.assign(assert, { equal() {} }); function f() { return 2; }\nassert.equal(f(), 1);",
    "require('assert').strict.equal = () => {}; function f() { return 2; }\nassert.strict.equal(f(), 1);",
    "require('assert').equal = () => {}; function f() { return 2; }\nrequire('node:assert').equal(f(), 1);",
];
