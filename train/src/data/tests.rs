use super::*;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

fn rows(n: usize) -> Vec<Example> {
    (0..n).map(|i| Example::new(i.to_string(), "x")).collect()
}

#[test]
fn spread_rows_keep_their_order_and_their_distance() {
    assert_eq!(take_evenly((0..10).collect(), 3), [3, 6, 9]);
    assert_eq!(take_evenly(vec![7, 8], 5), [7, 8]);
    assert!(take_evenly(vec![1, 2], 0).is_empty() && take_evenly(Vec::<u8>::new(), 3).is_empty());
}

#[test]
fn the_split_is_a_partition_that_only_the_seed_decides() {
    let (train, held) = split(rows(40), 8, 42).unwrap();
    assert_eq!((train.len(), held.len()), (32, 8));
    let number = |r: &Example| r.messages[0].content.parse::<usize>().unwrap();
    let mut all: Vec<usize> = train.iter().chain(&held).map(number).collect();
    all.sort();
    assert_eq!(all, (0..40).collect::<Vec<_>>());
    assert_eq!(split(rows(40), 8, 42).unwrap(), (train, held.clone()));
    assert_ne!(split(rows(40), 8, 43).unwrap().1, held);
    assert!(split(rows(8), 8, 42).unwrap_err().to_string().contains("8 validation rows"));
    assert_eq!((rows_of_share(40, 0.05).unwrap(), rows_of_share(9, 0.5).unwrap()), (2, 5));
    assert!(rows_of_share(9, 0.05).unwrap_err().to_string().contains("0.05 of 9 rows is no row"));
}

/// Reads a file with this text.
fn read_text(text: &str) -> Result<Dataset> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data.jsonl");
    fs::write(&file, text).unwrap();
    read(&file)
}

/// A data set without the names of its files.
fn nameless(mut dataset: Dataset) -> Dataset {
    dataset.files.iter_mut().for_each(|file| file.path = PathBuf::new());
    dataset
}

fn read_row(row: Value) -> Result<Dataset> {
    read_text(&format!("\n{row}\n"))
}

/// The messages of a row, as `S: text`, `U: text`, `A: text` and `T: text`.
fn messages(row: Value) -> Vec<String> {
    let dataset = read_row(row.clone()).unwrap();
    assert_eq!(dataset.examples.len(), 1, "{row}");
    let shown = |m: &Message| format!("{}: {}", &format!("{:?}", m.role)[..1], m.content);
    dataset.examples[0].messages.iter().map(shown).collect()
}

#[test]
fn every_pair_of_keys_is_a_prompt_and_its_answer() {
    for (prompt, answer) in [
        ("instruction", "output"),
        ("instruction", "response"),
        ("prompt", "completion"),
        ("prompt", "response"),
        ("question", "answer"),
        ("question", "response"),
        ("query", "response"),
        ("problem", "solution"),
        ("input", "output"),
    ] {
        assert_eq!(
            messages(json!({prompt: "do", answer: "done"})),
            ["U: do", "A: done"],
            "{prompt} {answer}"
        );
    }
}

#[test]
fn an_input_a_system_text_and_a_history_are_read_as_alpaca_s() {
    let alpaca = json!({"instruction": "Sort.", "input": "2 1", "output": "1 2", "system": "Be brief.",
        "history": [["Hi", "Hello"], ["2?", "Two"]]});
    assert_eq!(
        messages(alpaca),
        ["S: Be brief.", "U: Hi", "A: Hello", "U: 2?", "A: Two", "U: Sort.\n\n2 1", "A: 1 2"]
    );
    let empty = json!({"instruction": "Sort.", "input": "", "output": "1", "system": null, "history": []});
    assert_eq!(messages(empty), ["U: Sort.", "A: 1"]);
    assert_eq!(messages(json!({"instruction": "", "input": "Sort.", "output": "1"})), ["U: Sort.", "A: 1"]);
    let dolly = json!({"instruction": "Who?", "context": "A wrote it.", "response": "A"});
    assert_eq!(messages(dolly), ["U: Who?\n\nA wrote it.", "A: A"]);
    let orca = json!({"system_prompt": "Think.", "question": "1+1?", "response": "2"});
    assert_eq!(messages(orca), ["S: Think.", "U: 1+1?", "A: 2"]);
}

#[test]
fn conversations_of_openai_and_sharegpt_are_read() {
    let openai = json!({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a"}, {"role": "tool", "content": "t"},
        {"role": "assistant", "content": "b"}, {"role": "user", "content": "unanswered"}]});
    assert_eq!(messages(openai), ["S: s", "U: u", "A: a", "T: t", "A: b"]);
    let sharegpt = json!({"system": "s", "conversations": [{"from": "human", "value": "u"},
        {"from": "gpt", "value": "a"}]});
    assert_eq!(messages(sharegpt), ["S: s", "U: u", "A: a"]);
}

#[test]
fn keys_that_are_not_read_are_counted() {
    let text = "{\"instruction\":\"a\",\"output\":\"b\",\"repo\":\"c\",\"text\":null}\n\
        {\"messages\":[{\"role\":\"user\",\"content\":\"a\",\"name\":\"x\"},{\"role\":\"assistant\",\"content\":\"b\",\"name\":\"y\"}],\
        \"repo\":1,\"input\":\"not of a conversation\"}\n";
    let unused = read_text(text).unwrap().unused_keys;
    assert_eq!(
        unused,
        [("input", 1), ("messages.name", 1), ("repo", 2)].map(|(k, n)| (k.to_string(), n)).into()
    );
}

#[test]
fn rows_without_an_answer_are_counted_and_left_out() {
    let asked = json!({"role": "user", "content": "a"});
    let text: String = [
        json!({"instruction": "a", "output": ""}),
        json!({"instruction": "b", "output": "x"}),
        json!({"prompt": "a", "completion": " \n\t"}),
        json!({"messages": [asked]}),
        json!({"messages": []}),
        json!({"messages": [asked, {"role": "assistant", "content": ""}, asked, {"role": "assistant", "content": "x"}]}),
        json!({"instruction": "c", "output": "x"}),
    ]
    .map(|row| format!("{row}\n"))
    .concat();
    let dataset = read_text(&text).unwrap();
    assert_eq!((dataset.rows, dataset.without_answer()), (7, 5));
    assert_eq!(dataset.examples.iter().map(|example| example.row).collect::<Vec<_>>(), [1, 6]);
}

#[test]
fn blank_answers_are_kept_where_rows_are_plain_text() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "{\"instruction\": \"a\", \"output\": \"\"}\n{\"messages\": []}\n").unwrap();
    let dataset = read_all(&[file.path()], &Columns::default(), true).unwrap();
    assert_eq!((dataset.rows, dataset.examples.len(), dataset.without_answer()), (2, 1, 1));
}

#[test]
fn what_is_no_row_is_refused_by_its_line() {
    for (row, expected) in [
        (json!(["do", "done"]), "an array"),
        (json!(7), "a number"),
        (json!(null), "null"),
        (json!("text"), "a string"),
        (json!({"instruction": "a"}), "missing field `output`, the answer to `instruction`"),
        (json!({"answer": "a"}), "missing field `question`, the prompt of `answer`"),
        (json!({"instruction": "a", "output": null}), "`output` is null, expected text"),
        (json!({"instruction": 1, "output": "b"}), "`instruction` is a number, expected text"),
        (json!({"instruction": "a", "output": {"code": "b"}}), "`output` is an object, expected text"),
        (json!({"instruction": "a", "output": ["b"]}), "`output` is a list, expected text"),
        (json!({"instruction": "a", "input": 3, "output": "b"}), "`input` is a number, expected text"),
        (json!({"instruction": "a", "output": "b", "response": "c"}), "could each be the row's text"),
        (json!({"prompt": "a", "completion": "b", "messages": []}), "could each be the row's text"),
        (
            json!({"instruction": "a", "output": "b", "input": "c", "context": "d"}),
            "`input` and `context` both",
        ),
        (json!({"instruction": "a", "output": "b", "history": [["c"]]}), "`history` is no list of"),
        (json!({"messages": "a"}), "`messages` is text, expected a list of messages"),
        (json!({"messages": ["a"]}), "a message 1 that is no message: it is text"),
        (json!({"messages": [{"role": "boss", "content": "a"}]}), "`role` is `boss`, expected one of system"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
            "`content` is a list, expected text",
        ),
        (json!({"messages": [{"content": "a"}]}), "expected `role` and `content`, or `from` and `value`"),
        (json!({"text": "a", "\u{1b}[31m": 1}), "expected `instruction` and `output`"),
        (json!({}), "expected `instruction` and `output`"),
    ] {
        let message = read_text(&format!("{{\"instruction\":\"a\",\"output\":\"b\"}}\n\n{row}\n"))
            .unwrap_err()
            .to_string();
        assert!(message.contains("data.jsonl: line 3: ") && message.contains(expected), "{row}: {message}");
        assert!(!message.contains(['\n', '\u{1b}']), "{message}");
    }
}

#[test]
fn turns_are_questions_and_answers_in_alternation() {
    let example = |roles: &str| {
        let role = |c| match c {
            's' => Role::System,
            'u' => Role::User,
            't' => Role::Tool,
            _ => Role::Assistant,
        };
        let message = |c: char| Message { role: role(c), content: c.to_string() };
        Example { messages: roles.chars().map(message).collect(), hole: None, template: None, row: 0 }
    };
    let turns = |roles| -> Option<Vec<(String, String)>> {
        let example = example(roles);
        Some(example.turns()?.into_iter().map(|t| (t.instruction, t.answer.to_string())).collect())
    };
    let pair = |u: &str| (u.to_string(), "a".to_string());
    assert_eq!(turns("ua"), Some(vec![pair("u")]));
    assert_eq!(turns("suaua"), Some(vec![pair("s\n\nu"), pair("u")]));
    for odd in ["aua", "uua", "usa", "uta", "sa", "uaa", "suasua"] {
        assert_eq!(turns(odd), None, "{odd}");
    }
}

/// Writes rows of text as a Parquet file with two columns, the second of which may be null.
fn write_parquet(path: &PathBuf, rows: &[(&str, Option<&str>)], compression: parquet::basic::Compression) {
    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use std::sync::Arc;
    let schema = "message rows { required binary instruction (UTF8); optional binary output (UTF8); }";
    let schema = Arc::new(parquet::schema::parser::parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let file = fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let instructions: Vec<ByteArray> = rows.iter().map(|(text, _)| (*text).into()).collect();
    let outputs: Vec<ByteArray> = rows.iter().filter_map(|(_, text)| Some((*text)?.into())).collect();
    let levels: Vec<i16> = rows.iter().map(|(_, text)| text.is_some().into()).collect();
    for (values, levels) in [(instructions, None), (outputs, Some(&levels[..]))] {
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&values, levels, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn parquet_is_read_as_json_is() {
    use parquet::basic::{Compression, GzipLevel, ZstdLevel};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    let expected = read_text(
        "{\"instruction\":\"a\",\"output\":\"b\"}\n{\"instruction\":\"ü\",\"output\":\"\"}\n{\"instruction\":\"c\",\"output\":\"d\"}\n",
    )
    .map(nameless);
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
    ] {
        write_parquet(&path, &[("a", Some("b")), ("ü", Some("")), ("c", Some("d"))], compression);
        assert_eq!(read(&path).map(nameless), expected, "{compression:?}");
    }
    write_parquet(&path, &[("a", Some("b")), ("c", None)], Compression::SNAPPY);
    let message = read(&path).unwrap_err().to_string();
    assert!(message.ends_with("rows.parquet: row 2: `output` is null, expected text"), "{message}");
    let whole = fs::read(&path).unwrap();
    for cut in [5, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        let message = read(&path).unwrap_err().to_string();
        assert!(message.contains("no readable Parquet file") && !message.contains('\n'), "{message}");
    }
}

#[test]
fn an_array_a_mark_and_gzip_change_no_row() {
    let rows = [json!({"instruction": "a", "output": "b"}), json!({"instruction": "c", "output": "d"})];
    let lines = format!("{}\n{}\n", rows[0], rows[1]);
    let expected = nameless(read_text(&lines).unwrap());
    assert_eq!(expected.examples.len(), 2);
    let array = serde_json::to_string_pretty(&rows).unwrap();
    for text in
        [array.clone(), format!("\u{feff}{lines}"), format!("\u{feff}{array}"), lines.replace('\n', "\r\n")]
    {
        assert_eq!(nameless(read_text(&text).unwrap()), expected, "{text}");
    }
    let message = read_text("[\n{\"instruction\":\"a\",\"output\":\"b\"},\n[\"do\",\"done\"]]").unwrap_err();
    assert!(message.to_string().contains("line 3: a row is a JSON object"), "{message}");
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("rows.json.gz", &array), ("rows.jsonl.gz", &lines)] {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut packed, text.as_bytes()).unwrap();
        fs::write(folder.path().join(name), packed.finish().unwrap()).unwrap();
        assert_eq!(nameless(read(folder.path().join(name)).unwrap()), expected, "{name}");
    }
}

#[test]
fn a_folder_and_a_list_of_files_are_read_in_order_and_what_is_no_rows_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let line = |text: &str, output: &str| format!("{}\n", json!({"instruction": text, "output": output}));
    for name in ["all/data", "all/.cache", "all/empty"] {
        fs::create_dir_all(path(name)).unwrap();
    }
    std::os::unix::fs::symlink(path("all"), path("all/round")).unwrap();
    fs::write(path("first.jsonl"), line("0", "x") + &line("1", " ")).unwrap();
    write_parquet(&path("all/data/b.parquet"), &[("3", Some("x"))], parquet::basic::Compression::SNAPPY);
    fs::write(path("all/data/a.json"), format!("[{}]", line("2", "x"))).unwrap();
    for name in ["all/README.md", "all/.cache/x.jsonl", "all/dataset_info.json", "all/.hidden.jsonl"] {
        fs::write(path(name), "{}").unwrap();
    }
    let read = |paths: &[PathBuf]| read_all(paths, &Columns::default(), false);
    let dataset = read(&[path("first.jsonl"), path("all")]).unwrap();
    let rows: Vec<(usize, &str)> =
        dataset.examples.iter().map(|e| (e.row, e.messages[0].content.as_str())).collect();
    assert_eq!(rows, [(0, "0"), (2, "2"), (3, "3")]);
    let files: Vec<(usize, usize, usize)> =
        dataset.files.iter().map(|file| (file.first_row, file.rows, file.left_out.without_answer)).collect();
    assert_eq!((files, dataset.rows), (vec![(0, 2, 1), (2, 1, 0), (3, 1, 0)], 4));
    let others = [".cache", ".hidden.jsonl", "README.md", "dataset_info.json", "round"];
    assert_eq!(dataset.other_files, others.map(|name| path("all").join(name)));

    for (paths, expected) in [
        (vec![path("all/empty")], "all/empty: holds no file of rows (.jsonl"),
        (vec![path("all"), path("all/data/a.json")], "a.json: is given twice"),
        (vec![path("absent")], "absent"),
    ] {
        let message = read(&paths).unwrap_err().to_string();
        assert!(message.contains(expected) && !message.contains('\n'), "{message}");
    }
}

/// Reads rows whose columns have other names.
fn read_mapped(map: &str, rows: &[Value]) -> Result<Dataset, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    let columns = map.parse().map_err(|e: Error| e.to_string())?;
    read_all(&[file.path()], &columns, false).map_err(|e| e.to_string())
}

#[test]
fn mapped_columns_are_the_text_of_a_row_and_the_others_keep_their_names() {
    let texts = |map: &str, row: Value| -> Vec<String> {
        let dataset = read_mapped(map, &[row]).unwrap();
        dataset.examples[0].messages.iter().map(|message| message.content.clone()).collect()
    };
    assert_eq!(texts("instruction=ask,output=reply", json!({"ask": "a", "reply": "b"})), ["a", "b"]);
    assert_eq!(
        texts("output=reply", json!({"instruction": "a", "input": "i", "reply": "b"})),
        ["a\n\ni", "b"]
    );
    // Each other's names, and a row that is a pair of other columns too.
    assert_eq!(
        texts("instruction=output,output=instruction", json!({"output": "a", "instruction": "b"})),
        ["a", "b"]
    );
    let row =
        json!({"prompt": "p", "completion": "c", "instruction": "id 7", "question": "q", "answer": "r"});
    assert_eq!(texts("instruction=prompt,output=completion", row.clone()), ["p", "c"]);
    let unused = read_mapped("instruction=prompt,output=completion", &[row]).unwrap().unused_keys;
    assert_eq!(unused.into_keys().collect::<Vec<_>>(), ["answer", "instruction", "question"]);
    assert_eq!(
        texts(
            "messages=chat",
            json!({"chat": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]})
        ),
        ["u", "a"]
    );
}

#[test]
fn a_column_that_is_not_there_is_named_with_those_that_are() {
    let rows = [json!({"ask": "a", "text": 1}), json!({"ask": "b", "reply": "c"})];
    // Of JSON Lines, one row may lack what another has.
    let message = read_mapped("instruction=ask,output=reply", &rows).unwrap_err();
    assert!(message.contains("line 1: missing field `output`"), "{message}");
    for (map, expected) in [
        (
            "instruction=ask,output=answer",
            "no column `answer` for `output`; the columns are `ask`, `reply`, `text`",
        ),
        ("instruction=ask,output", "`output` is no KEY=COLUMN"),
        ("instruction=", "`instruction=` is no KEY=COLUMN"),
        ("instruct=ask", "`instruct` is no key of a row; these are: answer, completion, "),
        ("instruction=ask,instruction=reply", "names a key or a column twice"),
        ("instruction=ask,output=ask", "names a key or a column twice"),
    ] {
        let message = read_mapped(map, &rows).unwrap_err();
        assert!(message.contains(expected) && !message.contains('\n'), "{map}: {message}");
    }
}

#[test]
fn a_parquet_file_made_to_fill_the_memory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.parquet");
    let text = "x".repeat(1 << 16);
    write_parquet(&path, &vec![(text.as_str(), Some("y")); 100], parquet::basic::Compression::SNAPPY);
    let read = |limit| table::parquet_rows(fs::File::open(&path).unwrap(), limit);
    assert_eq!(read(8 << 20).unwrap().len(), 100);
    let message = read(1 << 20).unwrap_err().to_string();
    assert!(message.contains("row 16: it unpacks to 1 MiB"), "{message}");
}

#[test]
fn a_parquet_schema_nested_without_end_is_refused() {
    // FileMetaData in Thrift's compact form: version 1, then a schema of groups of one child each.
    let depth = 100_000u32;
    let mut footer = vec![0x15, 2, 0x19, 0xfc];
    let mut length = depth;
    while length > 0x7f {
        footer.push(length as u8 | 0x80);
        length >>= 7;
    }
    footer.push(length as u8);
    for _ in 0..depth {
        // Repetition, name and number of children.
        footer.extend([0x35, 0, 0x18, 1, b'a', 0x15, 2, 0]);
    }
    footer.extend([0x16, 0, 0x19, 0x0c, 0]);
    let text = [b"PAR1", &footer[..], &(footer.len() as u32).to_le_bytes(), b"PAR1"].concat();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    let message = read(file.path()).unwrap_err().to_string();
    assert!(message.contains("no readable Parquet file") && !message.contains('\n'), "{message}");
}

#[test]
fn a_parquet_file_with_any_byte_changed_is_read_or_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    write_parquet(&path, &[("a", Some("b")), ("c", Some("d"))], parquet::basic::Compression::SNAPPY);
    let whole = fs::read(&path).unwrap();
    for (at, flip) in (0..whole.len()).flat_map(|at| [0x01, 0x80, 0xff].map(|flip| (at, flip))) {
        let mut changed = whole.clone();
        changed[at] ^= flip;
        fs::write(&path, changed).unwrap();
        if let Err(e) = read(&path) {
            assert!(!e.to_string().contains('\n'), "byte {at} by {flip:x}: {e}");
        }
    }
}

#[test]
fn a_hole_is_read_with_what_fills_it() {
    let row = json!({"prefix": "a", "suffix": "", "output": "b", "path": "x.ts", "template": "plain"});
    let dataset = read_row(row).unwrap();
    let hole = Hole { prefix: "a".into(), suffix: String::new() };
    assert_eq!(dataset.examples[0].infilled(), Some((&hole, "b")));
    assert_eq!((dataset.examples[0].turns(), dataset.examples[0].template), (None, None));
    let unused: Vec<&str> = dataset.unused_keys.keys().map(String::as_str).collect();
    assert_eq!(unused, ["path", "template"], "a hole has no template");
    let blank = read_row(json!({"prefix": "a", "suffix": "c", "output": " \n"})).unwrap();
    assert_eq!((blank.examples.len(), blank.without_answer()), (0, 1));
    let columns: Columns = "prefix=before,suffix=after,output=middle".parse().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data.jsonl");
    fs::write(&file, "{\"before\":\"a\",\"after\":\"\",\"middle\":\"b\"}\n").unwrap();
    let mapped = read_all(&[file], &columns, false).unwrap();
    assert_eq!(mapped.examples[0].infilled(), Some((&hole, "b")));
    for (row, part) in [
        (json!({"prefix": "a", "output": "b"}), "missing field `suffix`, which a row with `prefix` has too"),
        (json!({"prefix": "a", "suffix": "c"}), "missing field `output`, which a row with `prefix` has too"),
        (json!({"prefix": 1, "suffix": "c", "output": "b"}), "`prefix` is a number"),
        (
            json!({"prefix": "a", "suffix": "c", "output": "b", "instruction": "d"}),
            "could each be the row's text",
        ),
    ] {
        let message = read_row(row).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
}
