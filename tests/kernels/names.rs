//! The `compliance` kernels: against rapidfuzz, and the properties of their scores.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use tower::{Service, ServiceExt};
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::kernels::compliance::entity_resolution::{EntityResolution, EntityResolutionInput};
use tower_kernels::kernels::compliance::names::{Entity, NameList, NameListDocument, Scorer, TextArray, normalize};
use tower_kernels::kernels::compliance::sanctions_screening::{
    SanctionsScreening, SanctionsScreeningInput, SanctionsScreeningOutput,
};
use tower_kernels::service::{
    DType, Kernel, KernelError, KernelRegistry, KernelRequest, KernelService, Operand, OperandValue, Operands, Payload,
    PutOptions, RunContext, Tensor, Tensors,
};

use crate::service::{ask, read, rejection, tensor, tensors};

const SCORERS: [(&str, Scorer); 5] = [
    ("jaro_winkler", Scorer::JaroWinkler),
    ("edit", Scorer::Edit),
    ("ratio", Scorer::Ratio),
    ("token_sort", Scorer::TokenSort),
    ("token_set", Scorer::TokenSet),
];

fn texts(values: &Value) -> Vec<String> {
    values.as_array().unwrap().iter().map(|value| value.as_str().unwrap().to_owned()).collect()
}

fn list(names: &[String], normalize: bool) -> NameListDocument {
    NameListDocument { normalize, ..NameListDocument::new(names.iter().map(String::as_str)) }
}

fn screen(input: &SanctionsScreeningInput) -> SanctionsScreeningOutput {
    SanctionsScreening.validate(input).unwrap();
    SanctionsScreening.run_cpu(input, &RunContext::detached()).unwrap()
}

/// The score of each name of the list, of one name.
fn all_scores(scorer: Scorer, name: &str, names: &[String], normalize: bool) -> Vec<f64> {
    let input = SanctionsScreeningInput {
        scorer,
        min_score: 0.0,
        max_matches: 1024,
        ..SanctionsScreeningInput::new(vec![name.to_owned()], Operand::inline(list(names, normalize)))
    };
    let output = screen(&input);
    assert_eq!((output.entries.len(), output.is_hit), (names.len(), vec![true]));
    let mut scores = vec![f64::NAN; names.len()];
    output.entries.iter().zip(output.scores.iter()).for_each(|(&entry, &score)| scores[entry as usize] = score);
    scores
}

fn score(scorer: Scorer, a: &str, b: &str) -> f64 {
    all_scores(scorer, a, &[b.to_owned()], true)[0]
}

#[test]
fn scores_are_those_of_rapidfuzz() {
    let goldens: Value = serde_json::from_str(include_str!("../goldens/names.json")).unwrap();
    let (queries, names) = (texts(&goldens["queries"]), texts(&goldens["names"]));
    assert!(queries.len() >= 25 && names.len() >= 40);
    for (name, normalized) in names.iter().zip(texts(&goldens["normalized"])) {
        assert_eq!(normalize(name), normalized);
    }
    for (form, normalize) in [("scores", true), ("raw_scores", false)] {
        for (name, scorer) in SCORERS {
            for (query, expected) in queries.iter().zip(goldens[form][name].as_array().unwrap()) {
                let scores = all_scores(scorer, query, &names, normalize);
                for (index, (score, expected)) in scores.iter().zip(expected.as_array().unwrap()).enumerate() {
                    let (expected, other) = (expected.as_f64().unwrap(), &names[index]);
                    assert!((score - expected).abs() < 1e-8, "{form}, {name}, {query}, {other}: {score} {expected}");
                }
            }
        }
    }
}

#[tokio::test]
async fn names_are_screened_by_a_document() {
    let entries = json!({"entries": [
        {"id": 7, "name": "SMITH, John", "aliases": ["Johnny Smith"], "source": "OFAC", "country": "US", "dob": 19600131},
        {"id": 9, "name": "Doe, José", "source": "EU", "country": "ES"},
    ]});
    let input = json!({"names": ["jon smith", "Jane Roe", "josé doe"], "sanctions_list": entries});
    let output = ask("compliance/sanctions-screening", &input.to_string()).await.unwrap();
    let expected = json!({
        "is_hit": [true, false, true], "match_offsets": [0, 1, 1, 2], "entries": [0, 1], "ids": [7, 9],
        "scores": [1.0 - 1.0 / 19.0, 1.0], "name_indices": [0, 0], "matched_names": ["SMITH, John", "Doe, José"],
        "sources": ["OFAC", "EU"],
    });
    assert_eq!(output, expected);
    let input = json!({"name": "Smith Johnny", "sanctions_list": entries, "max_matches": 1});
    let output = ask("compliance/sanctions-screening", &input.to_string()).await.unwrap();
    assert_eq!((&output["name_indices"], &output["matched_names"]), (&json!([1]), &json!(["Johnny Smith"])));
}

#[tokio::test]
async fn entities_are_resolved_by_name_and_attributes() {
    let candidates = json!({"entries": [
        {"id": 1, "name": "John Smith", "dob": 19600131, "country": "US", "entity_type": "person"},
        {"id": 2, "name": "John Smith", "dob": 19600201, "country": "us", "entity_type": "person"},
        {"id": 3, "name": "Smith John"},
        {"id": 4, "name": "John Smith", "country": "FR"},
    ]});
    let query = json!({"id": 50, "name": "john smith", "date": 19600131, "country": "U.S.", "entity_type": "Person"});
    let mut input = json!({"query": query, "candidates": candidates, "min_score": 0.0});
    let output = ask("compliance/entity-resolution", &input.to_string()).await.unwrap();
    // "U.S." is "u s", and no candidate is from there.
    let scores = [(3, 1.0), (1, 1.4 / 1.6), (4, 1.0 / 1.2), (2, 1.25 / 1.6)];
    let scores_of = |output: &Value| -> Vec<(u64, f64)> {
        let ids = output["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap());
        ids.zip(output["scores"].as_array().unwrap().iter().map(|score| score.as_f64().unwrap())).collect()
    };
    let is_near = |found: &[(u64, f64)], expected: &[(u64, f64)]| {
        found.len() == expected.len()
            && found.iter().zip(expected).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 1e-12)
    };
    assert!(is_near(&scores_of(&output), &scores), "{output}");
    assert_eq!((&output["query_ids"], &output["match_offsets"]), (&json!([50]), &json!([0, 4])));

    input["query"]["country"] = json!("us");
    input["weights"] = json!({"date": 1.0, "entity_type": 0.0});
    let output = ask("compliance/entity-resolution", &input.to_string()).await.unwrap();
    let scores = [(1, 1.0), (3, 1.0), (4, 1.0 / 1.2), (2, 1.7 / 2.2)];
    assert!(is_near(&scores_of(&output), &scores), "{output}");

    // Several entities, one with an alias that is the same.
    let queries = json!({"entries": [{"name": "nobody"}, {"name": "x y", "aliases": ["smith, john"]}]});
    let input = json!({"queries": queries, "candidates": candidates, "max_matches": 2});
    let output = ask("compliance/entity-resolution", &input.to_string()).await.unwrap();
    assert_eq!((&output["query_ids"], &output["match_offsets"]), (&json!([0, 1]), &json!([0, 0, 2])));
    assert_eq!(scores_of(&output), [(1, 1.0), (2, 1.0)]);
}

#[tokio::test]
async fn invalid_inputs_are_rejected_by_their_field() {
    let list = json!({"entries": [{"name": "John"}]});
    let too_long = "x".repeat(1025);
    for (input, field) in [
        (json!({"sanctions_list": list}), "names"),
        (json!({"name": "a", "names": ["b"], "sanctions_list": list}), "names"),
        (json!({"names": [], "sanctions_list": list}), "names"),
        (json!({"names": ["a", "--"], "sanctions_list": list}), "names[1]"),
        (json!({"name": too_long, "sanctions_list": list}), "name"),
        (json!({"name": "a", "sanctions_list": list, "min_score": 1.5}), "min_score"),
        (json!({"name": "a", "sanctions_list": list, "max_matches": 0}), "max_matches"),
        (json!({"name": "a", "sanctions_list": list, "max_matches": 1025}), "max_matches"),
        (json!({"name": "a", "sanctions_list": list, "scorer": "soundex"}), "scorer"),
        (json!({"name": "a", "sanctions_list": {"entries": []}}), "sanctions_list.entries"),
        (
            json!({"name": "a", "sanctions_list": {"entries": [{"name": "b"}, {"name": "?"}]}}),
            "sanctions_list.entries[1].name",
        ),
        (
            json!({"name": "a", "sanctions_list": {"entries": [{"name": "b", "aliases": ["c", ""]}]}}),
            "sanctions_list.entries[0].aliases[1]",
        ),
        (
            json!({"name": "a", "sanctions_list": {"entries": [{"name": "b", "dob": 19601301}]}}),
            "sanctions_list.entries[0].date",
        ),
        (json!({"name": "a", "sanctions_list": {"entries": [{"name": "b\u{7}"}]}}), "sanctions_list.entries[0].name"),
        (json!({"name": "a", "sanctions_list": {"operand": "none"}}), "sanctions_list"),
    ] {
        assert_eq!(rejection(ask("compliance/sanctions-screening", &input.to_string()).await).field, field, "{input}");
    }
    for (input, field) in [
        (json!({"candidates": list}), "query"),
        (json!({"query": {"name": "a"}, "queries": list, "candidates": list}), "queries"),
        (json!({"query": {"name": "."}, "candidates": list}), "query.name"),
        (json!({"query": {"name": "a", "aliases": ["b", "."]}, "candidates": list}), "query.aliases[1]"),
        (json!({"query": {"name": "a", "aliases": vec!["b"; 256]}, "candidates": list}), "query.aliases"),
        (json!({"query": {"name": "a", "date": 7}, "candidates": list}), "query.date"),
        (json!({"query": {"name": "a"}, "candidates": list, "weights": {"name": 0}}), "weights.name"),
        (json!({"query": {"name": "a"}, "candidates": list, "weights": {"date": -1}}), "weights.date"),
        (json!({"queries": {"entries": [{"name": "a"}, {"name": ""}]}, "candidates": list}), "queries.entries[1].name"),
    ] {
        assert_eq!(rejection(ask("compliance/entity-resolution", &input.to_string()).await).field, field, "{input}");
    }
}

/// A list of two entries, of which the first has an alias, as tensors.
fn list_tensors() -> Tensors {
    let Payload::Tensors(tensors) = tensors([
        ("text", tensor(DType::U8, &[12], b"SmithJonesSm")),
        ("offsets", tensor(DType::U32, &[4], &[0_u32, 5, 10, 12])),
        ("entry_offsets", tensor(DType::U32, &[3], &[0_u32, 2, 3])),
        ("ids", tensor(DType::U64, &[2], &[70_u64, 80])),
        ("source_text", tensor(DType::U8, &[6], b"OFACEU")),
        ("source_offsets", tensor(DType::U32, &[3], &[0_u32, 4, 6])),
    ]) else {
        panic!("they are tensors");
    };
    tensors
}

#[tokio::test]
async fn a_stored_list_is_screened_with_tensors() {
    let registry = KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry).unwrap();
    let (payload, options) = (Payload::Tensors(list_tensors()), PutOptions::default());
    registry.operands().put_payload("list", "names", payload, &options, &RunContext::detached()).unwrap();
    let names = tensors([
        ("names", tensor(DType::U8, &[2, 8], b"jones\0\0\0xyz\0\0\0\0\0")),
        ("sanctions_list.operand", tensor(DType::U8, &[4], b"list")),
    ]);
    let mut service = KernelService::with_backend(registry, CpuBackend::new());
    let request = KernelRequest::new("compliance/sanctions-screening", names);
    let output = service.ready().await.unwrap().call(request).await.unwrap().payload;
    assert_eq!(read::<u8>(&output, "is_hit", DType::Bool), [1, 0]);
    assert_eq!(read::<u32>(&output, "match_offsets", DType::U32), [0, 1, 1]);
    assert_eq!(read::<u64>(&output, "ids", DType::U64), [70]);
    assert_eq!(read::<u32>(&output, "name_indices", DType::U32), [1]);
    assert_eq!(read::<u8>(&output, "matched_names", DType::U8), *b"Jones");
    assert_eq!(read::<u8>(&output, "sources", DType::U8), *b"OFAC");
}

#[test]
fn a_list_is_made_of_its_own_tensors() {
    let context = RunContext::detached();
    let of_tensors = NameList::decode(Payload::Tensors(list_tensors())).unwrap();
    let json = r#"{"entries": [
        {"id": 70, "name": "Smith", "aliases": ["Jones"], "source": "OFAC"}, {"id": 80, "name": "Sm", "source": "EU"}]}"#;
    let of_json = NameList::decode(Payload::json(json)).unwrap();
    assert_eq!(of_tensors, of_json);
    for document in [of_json, list(&["a b".to_owned()], false)] {
        let made = NameList::from_document(&document, &context).unwrap();
        assert_eq!(NameList::decode(Payload::Tensors(made.to_tensors())).unwrap(), document);
    }
}

#[test]
fn columns_that_do_not_fit_are_rejected_by_their_name() {
    let with = |changes: Vec<(&str, Tensor)>| -> Result<NameList, KernelError> {
        let mut all = Tensors::new();
        for (name, tensor) in list_tensors().iter() {
            if !changes.iter().any(|(changed, _)| *changed == name) {
                all.insert(name, tensor.clone()).unwrap();
            }
        }
        for (name, tensor) in changes {
            all.insert(name, tensor).unwrap();
        }
        NameList::from_document(&NameList::decode(Payload::Tensors(all))?, &RunContext::detached())
    };
    let words = |values: &[u32]| tensor(DType::U32, &[values.len()], values);
    assert!(with(vec![]).is_ok());
    for (name, value, field) in [
        ("offsets", words(&[]), "offsets[0]"),
        ("offsets", words(&[1, 5, 10, 12]), "offsets[0]"),
        ("offsets", words(&[0, 11, 10, 12]), "offsets[2]"),
        ("offsets", words(&[0, 5, 10, 4_000_000_000]), "offsets[3]"),
        ("offsets", words(&[0]), "offsets[0]"),
        ("entry_offsets", words(&[0, 2]), "entry_offsets[1]"),
        ("entry_offsets", words(&[0, 0, 3]), "entry_offsets[1]"),
        ("entry_offsets", words(&[0, 4, 3]), "entry_offsets[2]"),
        ("entry_offsets", words(&[]), "entry_offsets"),
        ("ids", tensor(DType::U64, &[1], &[1_u64]), "ids"),
        ("dates", words(&[19600131, 19600132]), "entries[1].date"),
        ("dates", words(&[19600131]), "dates"),
        ("source_offsets", words(&[0, 6]), "source_offsets"),
        ("text", tensor(DType::U8, &[12], b"Smith\xffonesSm"), "text[5]"),
        ("text", tensor(DType::U8, &[12], "Smit\u{e9}onesSm".as_bytes()), "offsets[1]"),
        ("country_text", tensor(DType::U8, &[1], b"x"), "input"),
    ] {
        match with(vec![(name, value)]).map(drop).unwrap_err() {
            KernelError::InvalidInput(invalid) => assert_eq!(invalid.field, field, "{name}: {invalid}"),
            other => panic!("{name}: {other}"),
        }
    }
}

/// Names of few letters, which have many in common.
fn any_name() -> impl Strategy<Value = String> {
    proptest::collection::vec("[abcdé]{1,9}", 1..12).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn scores_are_from_0_to_1_and_that_of_a_name_and_itself_is_1(a in any_name(), b in any_name()) {
        for (name, scorer) in SCORERS {
            prop_assert!((0.0..=1.0).contains(&score(scorer, &a, &b)), "{name}");
            prop_assert_eq!(score(scorer, &a, &a), 1.0, "{}", name);
        }
    }

    #[test]
    fn all_scores_but_those_of_jaro_and_winkler_are_symmetric(a in any_name(), b in any_name()) {
        for (name, scorer) in &SCORERS[1..] {
            prop_assert_eq!(score(*scorer, &a, &b), score(*scorer, &b, &a), "{}", name);
        }
    }

    #[test]
    fn the_order_of_words_and_case_do_not_matter(a in any_name(), b in any_name(), turn in 0_usize..12) {
        let mut words: Vec<&str> = a.split(' ').collect();
        let turn = turn % words.len();
        words.rotate_left(turn);
        let turned = words.join(", ").to_uppercase();
        for scorer in [Scorer::TokenSort, Scorer::TokenSet] {
            prop_assert_eq!(score(scorer, &a, &b), score(scorer, &turned, &b));
        }
    }

    /// No match is lost by the bounds that skip pairs: all scores are computed where `min_score` is 0 and there are few.
    #[test]
    fn matches_are_those_of_all_scores(
        query in any_name(),
        names in proptest::collection::vec(any_name(), 1..60),
        min_score in 0.0..1.0_f64,
        max_matches in 1_u32..20,
    ) {
        for (name, scorer) in SCORERS {
            let mut expected: Vec<(usize, f64)> = all_scores(scorer, &query, &names, true).into_iter().enumerate().collect();
            expected.retain(|(_, score)| *score >= min_score);
            expected.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            expected.truncate(max_matches as usize);
            let input = SanctionsScreeningInput {
                scorer,
                min_score,
                max_matches,
                ..SanctionsScreeningInput::new(vec![query.clone()], Operand::inline(list(&names, true)))
            };
            let output = screen(&input);
            let found = output.entries.iter().map(|&entry| entry as usize).zip(output.scores.iter().copied());
            prop_assert_eq!(found.collect::<Vec<_>>(), expected, "{}", name);
        }
    }
}

#[test]
fn a_cancelled_search_stops() {
    let names: Vec<String> = (0..200_000_u32).map(|index| format!("name {} of {}", index * 7919, index)).collect();
    let list = NameList::from_document(&list(&names, true), &RunContext::detached()).unwrap();
    let list: Operand<NameList> = Operands::default().put("list", list).unwrap();
    let input = SanctionsScreeningInput { min_score: 0.0, ..SanctionsScreeningInput::new(names, list) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let result = runtime.block_on(async {
        let registry = KernelRegistry::new();
        tower_kernels::kernels::register_all(&registry).unwrap();
        let mut service = KernelService::with_backend(registry, CpuBackend::new());
        let request = KernelRequest::new("compliance/sanctions-screening", Payload::typed(input));
        service.ready().await?.call(request.with_timeout(Duration::from_millis(300))).await
    });
    assert!(matches!(result, Err(KernelError::DeadlineExceeded { .. })), "{result:?}");
}

/// Text of outputs as a tensor is padded to the longest.
#[test]
fn texts_are_arrays_in_json() {
    let texts = TextArray(vec!["a".to_owned(), "é".to_owned()]);
    assert_eq!(serde_json::to_value(&texts).unwrap(), json!(["a", "é"]));
}

#[test]
fn an_entity_matches_a_list_of_its_names() {
    let entity = Entity { name: "Acme".to_owned(), aliases: vec!["Acme Holding".to_owned()], ..Entity::default() };
    let candidates =
        NameListDocument::from_entities(&[Entity { name: "Holding Acme".to_owned(), ..Entity::default() }], true);
    let input = EntityResolutionInput::new(entity, Operand::inline(candidates));
    EntityResolution.validate(&input).unwrap();
    let output = EntityResolution.run_cpu(&input, &RunContext::detached()).unwrap();
    assert_eq!((output.scores.to_vec(), output.entries.to_vec()), (vec![1.0], vec![0]));
}
