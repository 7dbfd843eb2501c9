//! Java sources of `org.javatuples`, which MultiPL-E's Java problems import: the part of its interface that they use.

/// Class names in the order of their number of values, from one.
const NAMES: [&str; 6] = ["Unit", "Pair", "Triplet", "Quartet", "Quintet", "Sextet"];

/// Returns the path and text of every source file.
pub fn sources() -> Vec<(String, String)> {
    let tuples = NAMES.iter().enumerate().map(|(i, name)| (file(name), class(name, i + 1)));
    tuples.chain([(file("Tuple"), TUPLE.to_string())]).collect()
}

fn file(name: &str) -> String {
    format!("org/javatuples/{name}.java")
}

const TUPLE: &str = "package org.javatuples;
import java.util.*;
public abstract class Tuple implements Iterable<Object>, Comparable<Tuple>, java.io.Serializable {
    private final List<Object> values;
    protected Tuple(Object... values) { this.values = Collections.unmodifiableList(Arrays.asList(values)); }
    public int getSize() { return values.size(); }
    public Object getValue(int index) { return values.get(index); }
    public boolean contains(Object value) { return values.contains(value); }
    public int indexOf(Object value) { return values.indexOf(value); }
    public List<Object> toList() { return values; }
    public Object[] toArray() { return values.toArray(); }
    public Iterator<Object> iterator() { return values.iterator(); }
    @Override public boolean equals(Object other) {
        return other != null && other.getClass() == getClass() && values.equals(((Tuple) other).values);
    }
    @Override public int hashCode() { return 31 + values.hashCode(); }
    @Override public String toString() { return values.toString(); }
    @SuppressWarnings(\"unchecked\") @Override public int compareTo(Tuple other) {
        for (int i = 0; i < Math.min(getSize(), other.getSize()); i++) {
            int order = ((Comparable<Object>) values.get(i)).compareTo(other.values.get(i));
            if (order != 0) return order;
        }
        return Integer.compare(getSize(), other.getSize());
    }
}
";

fn class(name: &str, n: usize) -> String {
    let list = |item: &dyn Fn(usize) -> String| (0..n).map(item).collect::<Vec<_>>().join(", ");
    let letter = |i: usize| char::from(b'A' + i as u8);
    let (types, values) = (list(&|i| letter(i).to_string()), list(&|i| format!("value{i}")));
    let params = list(&|i| format!("{} value{i}", letter(i)));
    let member = |i: usize| {
        let others = list(&|j| if i == j { "value".into() } else { format!("value{j}") });
        let with = list(&|j| if i == j { "X".into() } else { letter(j).to_string() });
        let (t, v) = (letter(i), format!("value{i}"));
        format!(
            "    private final {t} {v};\n    public {t} getValue{i}() {{ return {v}; }}\n    public <X> {name}<{with}> setAt{i}(X value) {{ return new {name}<>({others}); }}\n"
        )
    };
    let members: String = (0..n).map(member).collect();
    let assignments: String = (0..n).map(|i| format!(" this.value{i} = value{i};")).collect();
    format!(
        "package org.javatuples;\npublic final class {name}<{types}> extends Tuple {{\n{members}    public {name}({params}) {{ super({values});{assignments} }}\n    public static <{types}> {name}<{types}> with({params}) {{ return new {name}<>({values}); }}\n}}\n"
    )
}
