//! The fast reader beside serde_json, which says what a document means.

use serde::Deserialize;

use super::{decode_json, read_usual_json};
use crate::random::SplitMix64;
use crate::service::{Buffer, FloatArray, NumberArray};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Input {
    f32: Buffer<f32>,
    f64: Buffer<f64>,
    u32: Buffer<u32>,
    i64: Buffer<i64>,
    u8: Buffer<u8>,
    floats: FloatArray,
    numbers: NumberArray,
    pairs: Vec<[u32; 2]>,
    name: Option<String>,
    mode: Option<Mode>,
    nested: Option<Box<Input>>,
    any: serde_json::Value,
    scale: f32,
    count: i32,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Fast,
    Exact(u32),
}

/// The value as text: NaN cannot be read, and this tells -0 from 0.
fn shown(input: &Input) -> String {
    format!("{input:?}")
}

fn by_serde_json(document: &[u8]) -> Result<Input, serde_json::Error> {
    serde_json::from_slice(document)
}

/// What the fast reader reads, serde_json reads to the same value. Returns whether it did read it.
fn agrees(document: &[u8]) -> bool {
    let text = String::from_utf8_lossy(document);
    match (read_usual_json::<Input>(document), by_serde_json(document)) {
        (Ok(input), Ok(expected)) => assert_eq!(shown(&input), shown(&expected), "{text}"),
        (Ok(input), Err(error)) => panic!("{text}\nis read as {input:?}, but {error}"),
        (Err(_), _) => return false,
    }
    true
}

/// Random documents, most of which are valid.
struct Documents(SplitMix64);

impl Documents {
    fn below(&self, bound: u64) -> u64 {
        self.0.next() % bound
    }

    fn pick<'a>(&self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }

    fn space(&self) -> &'static str {
        self.pick(&["", "", "", "", " ", "  ", "\n", "\t\r\n", " \u{b}"][..if self.below(50) == 0 { 9 } else { 8 }])
    }

    fn digits(&self, most: u64) -> String {
        let count = self.below(most + 1);
        (0..count).map(|_| char::from(b'0' + self.below(10) as u8)).collect()
    }

    fn number(&self) -> String {
        let random = f64::from_bits(self.0.next());
        match self.below(24) {
            0 => self
                .pick(&[
                    "-0",
                    "0",
                    "-0.0",
                    "00",
                    "01",
                    "-01.5",
                    "1.",
                    ".5",
                    "-",
                    "+1",
                    "1e",
                    "1e+",
                    "1.e5",
                    "1.5e-3",
                    "1E400",
                    "-1e39",
                    "3.4028235e38",
                    "3.4028236e38",
                    "1e-400",
                    "1e-46",
                    "1.17549435e-38",
                    "16777217",
                    "16777217.0",
                    "NaN",
                    "9007199254740993",
                    "9007199254740993.0",
                    "9223372036854775807",
                    "-9223372036854775808",
                    "-9223372036854775809",
                    "18446744073709551615",
                    "18446744073709551616",
                    "123456789012345678901234567890",
                    "0.1e1",
                    "1.00000017881393432617187499",
                    "1.00000017881393432617187500",
                    "1.00000017881393432617187501",
                    "0.00000000000000000000000000001",
                    "12345678",
                    "1234567.5",
                    "-999999.9",
                    "null",
                    "true",
                    "\"1\"",
                    "[1]",
                    "{}",
                ])
                .to_owned(),
            1 if random.is_finite() => format!("{random}"),
            2 if random.is_finite() => format!("{random:e}"),
            3 => format!("{}", f32::from_bits(self.0.next() as u32)).replace("NaN", "0").replace("inf", "1"),
            4 => format!("{:e}", f32::from_bits(self.0.next() as u32)).replace("NaN", "0").replace("inf", "1"),
            5..12 => format!("{}{}", self.pick(&["", "-"]), self.below(1 << 40) >> self.below(40)),
            _ => {
                let whole = self.below(1 << 30) >> self.below(30);
                format!("{}{whole}.{}{}", self.pick(&["", "-"]), self.digits(20), self.below(10))
            }
        }
    }

    fn integer(&self) -> String {
        match self.below(200) {
            0 => self.number(),
            _ => (self.below(1 << 32) >> self.below(32)).to_string(),
        }
    }

    fn array(&self, element: impl Fn(&Self) -> String) -> String {
        let count = self.below(9);
        let elements: Vec<String> =
            (0..count).map(|_| format!("{}{}{}", self.space(), element(self), self.space())).collect();
        let last = if self.below(100) == 0 { "," } else { "" };
        format!("[{}{last}]", elements.join(","))
    }

    fn string(&self) -> String {
        let pieces = ["a", "é", "\\n", "\\u0041", "\\ud83d\\ude00", "\\ud800", "\\x", "\u{1}", "\\\"", "日本", " ", ""];
        let usual = if self.below(4) == 0 { pieces.len() } else { 2 };
        let count = self.below(4);
        format!("\"{}\"", (0..count).map(|_| self.pick(&pieces[..usual])).collect::<String>())
    }

    fn object(&self, depth: u64) -> String {
        let count = self.below(7);
        let fields: Vec<String> = (0..count)
            .map(|_| {
                let (name, value) = match self.below(15 + u64::from(depth == 0)) {
                    0 => ("f32", self.array(Self::number)),
                    1 => ("f64", self.array(Self::number)),
                    2 => ("u32", self.array(Self::integer)),
                    3 => ("i64", self.array(Self::integer)),
                    4 => ("u8", self.array(|documents| documents.below(257).to_string())),
                    5 => ("floats", self.array(Self::number)),
                    6 => ("numbers", self.array(Self::number)),
                    7 => {
                        ("pairs", self.array(|documents| format!("[{},{}]", documents.integer(), documents.integer())))
                    }
                    8 => ("name", self.string()),
                    9 => (
                        "mode",
                        self.pick(&["\"fast\"", "{\"exact\": 3}", "null", "\"f\\u0061st\"", "\"slow\""]).to_owned(),
                    ),
                    10 => ("scale", self.number()),
                    11 => ("count", self.integer()),
                    12 => ("floats", self.number()),
                    13 => ("any", self.array(Self::string)),
                    14 => ("f\\u00332", self.array(Self::number)),
                    _ => ("nested", self.object(depth + 1)),
                };
                format!("{}\"{name}\"{}:{}{value}{}", self.space(), self.space(), self.space(), self.space())
            })
            .collect();
        format!("{{{}{}}}", self.space(), fields.join(","))
    }

    fn document(&self) -> Vec<u8> {
        let mut document = format!("{}{}{}", self.space(), self.object(0), self.space()).into_bytes();
        // One in four is damaged.
        match self.below(12) {
            0 => document.truncate(self.below(document.len() as u64) as usize),
            1 => {
                let at = self.below(document.len() as u64) as usize;
                document[at] = self.below(256) as u8;
            }
            2 => {
                let at = self.below(document.len() as u64) as usize;
                document.remove(at);
            }
            _ => {}
        }
        document
    }
}

#[test]
fn random_documents_are_read_as_serde_json_reads_them() {
    let documents = Documents(SplitMix64::new(1));
    let read = (0..100_000).filter(|_| agrees(&documents.document())).count();
    assert!(read > 30_000, "only {read} were read");
}

#[test]
fn numbers_of_each_length_are_read_to_the_same_bits() {
    let documents = Documents(SplitMix64::new(2));
    for _ in 0..2_000 {
        let numbers: Vec<String> = (0..50)
            .map(|_| match documents.below(5) {
                0 => format!("{:?}", f64::from_bits(documents.0.next())).replace("NaN", "0").replace("inf", "1"),
                1 => format!("{:?}", documents.below(1 << 40) as f64 / 1e5),
                2 => format!("{:?}", documents.below(1 << 60) as f64 / (1_u64 << 60) as f64),
                3 => {
                    let digits = documents.0.next().to_string();
                    let (whole, places) = digits.split_at(1 + documents.below(3) as usize);
                    format!("{whole}.{places}")
                }
                _ => format!("{:?}", documents.below(1 << 50) as f64 / 1e3 - 5e11),
            })
            .collect();
        assert!(agrees(format!("{{\"f64\": [{}]}}", numbers.join(",")).as_bytes()));
        let of_f32 = numbers.iter().filter(|number| number.parse::<f32>().unwrap().is_finite());
        let of_f32: Vec<&str> = of_f32.map(String::as_str).collect();
        assert!(agrees(format!("{{\"f32\": [{}]}}", of_f32.join(", ")).as_bytes()));
    }
    // Two numbers of single precision that are neighbours, the point between them, and what is next to that.
    for bits in [0x3f80_0000_u32, 0x3dcc_cccd, 0x4b7f_ffff, 0x3c00_0000] {
        let (low, high) = (f64::from(f32::from_bits(bits)), f64::from(f32::from_bits(bits + 1)));
        let between = f64::midpoint(low, high);
        for number in [between, between.next_up(), between.next_down()] {
            assert!(agrees(format!("{{\"f32\": [{number}, {number:.20}, {number:.40}, 1]}}").as_bytes()), "{number}");
        }
    }
}

#[test]
fn the_usual_documents_are_read_fast() {
    for document in [
        r#"{"f32": [1, 2.5, -3e-5, 0.1], "scale": 2, "count": -1}"#,
        r#" { "f64" : [ 1.5 , -0.25 ] , "u32":[0,4294967295], "i64": [-9223372036854775808, 9], "u8": [0, 255] } "#,
        r#"{"floats": 1.5, "numbers": [1, 18446744073709551615], "pairs": [[0, 1], [2, 3]], "name": "a\u0000é"}"#,
        r#"{"mode": "fast", "nested": {"mode": {"exact": 1}, "any": {"deep": [true, false, null]}}}"#,
        r#"{"f32": [], "name": null, "f64": [1234567.125, 12345678.5, 1234567890123456.7, 0.12345678901234567]}"#,
        "{}",
    ] {
        assert!(agrees(document.as_bytes()), "{document}");
    }
}

#[test]
fn a_document_that_ends_anywhere_is_an_error() {
    let document =
        r#"{"f32": [1.25, -2, 3e1], "pairs": [[0, 1], [2, 3]], "name": "a\n", "nested": {"u32": [12345678, 1]}}"#;
    assert!(agrees(document.as_bytes()));
    for end in 0..document.len() {
        let error = decode_json::<Input>(&document.as_bytes()[..end]).unwrap_err();
        assert!(error.reason.contains("EOF") || error.reason.contains("expected"), "{end}: {error}");
    }
}

#[test]
fn a_wrong_element_near_the_end_of_ten_megabytes_is_named() {
    let mut document = format!("{{\"f32\": [{}", "0.125, ".repeat(1_500_000));
    document.push_str("\"x\", 1]}");
    let error = decode_json::<Input>(document.as_bytes()).unwrap_err();
    assert_eq!(error.field, "f32[1500000]", "{error}");
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| format!("{{\"any\": {}{}}}", "[".repeat(depth), "]".repeat(depth));
    for depth in [1, 100, 125, 126, 127, 128, 1_000] {
        let document = nested(depth);
        let read = decode_json::<Input>(document.as_bytes());
        assert_eq!(read.is_ok(), by_serde_json(document.as_bytes()).is_ok(), "{depth}");
    }
}
