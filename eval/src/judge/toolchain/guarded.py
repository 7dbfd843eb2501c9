# Runs a candidate and then its tests, whose comparisons are made here, so that no `__eq__` of the candidate decides. Prints the
# nonce, which comes by standard input and exists nowhere else, once the tests have reached their end.
import ast
import os
import sys
import types


def read_and_empty(name):
    with open(name, encoding="utf-8", newline="") as file:
        text = file.read()
    open(name, "w").close()
    return text


def same_type(kind):
    return kind in (bool, int, float, complex, str, bytes, bytearray, type(None))


def plain(value):
    """The value as the language's own types hold it, whatever a subclass says of itself."""
    kind = type(value)
    if same_type(kind):
        return value
    if issubclass(kind, list):
        return [plain(item) for item in list.__iter__(value)]
    if issubclass(kind, tuple):
        return tuple(plain(item) for item in tuple.__iter__(value))
    if issubclass(kind, dict):
        return {key: plain(item) for key, item in dict.items(value)}
    if issubclass(kind, (set, frozenset)):
        return frozenset((set if issubclass(kind, set) else frozenset).__iter__(value))
    for base, own in ((int, int.__int__), (float, float.__float__), (str, str.__str__)):
        if issubclass(kind, base):
            return own(value)
    return value


def built_in(value):
    return isinstance(value, (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, type(None)))


def equal(left, right):
    try:
        left, right = plain(left), plain(right)
    except RecursionError:
        return left == right
    for one, other in ((left, right), (right, left)):
        if type(one).__module__ == "__main__" and built_in(other):
            return False
    return left == right


class Comparisons(ast.NodeTransformer):
    """Makes `equal` decide every `==` of the tests."""

    def __init__(self, name):
        self.name = name

    def visit_Compare(self, node):
        self.generic_visit(node)
        if len(node.ops) != 1 or not isinstance(node.ops[0], ast.Eq):
            return node
        function = ast.Name(id=self.name, ctx=ast.Load())
        return ast.copy_location(ast.Call(func=function, args=[node.left, *node.comparators], keywords=[]), node)


def main():
    nonce, write = os.read(0, 64), os.write
    candidate, tests = read_and_empty("candidate.py"), read_and_empty("tests.py")
    read_and_empty("guarded.py")
    name = "equal_" + os.urandom(16).hex()
    # A main module of its own; this one stays alive as long as its functions are needed.
    own, program = sys.modules["__main__"], types.ModuleType("__main__")
    sys.modules["__main__"] = program
    scope = program.__dict__
    scope.update({"__builtins__": own.__builtins__, "__file__": "file.py", name: equal})
    try:
        parts = [ast.parse(candidate), ast.fix_missing_locations(Comparisons(name).visit(ast.parse(tests)))]
    except SyntaxError:
        # Parts that are no programs alone.
        parts = [ast.parse(candidate + tests)]
    for part in parts:
        exec(compile(part, "file.py", "exec", dont_inherit=True), scope)
    write(1, nonce)


main()
