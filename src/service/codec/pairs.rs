//! Fields of pairs of integers, such as edges.

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::sections::{add_section, pairs_of_section};
use super::stop::read_all;
use crate::buffer::DType;

/// Writes an optional field of pairs, for `#[serde(serialize_with)]`.
pub(crate) fn serialize_pairs<S: Serializer>(pairs: &Option<Vec<[u32; 2]>>, serializer: S) -> Result<S::Ok, S::Error> {
    let bytes = |pairs: &Vec<[u32; 2]>| Bytes::copy_from_slice(bytemuck::cast_slice(pairs));
    let section = pairs.as_ref().and_then(|pairs| add_section(DType::U32, || bytes(pairs)));
    match section {
        Some(section) => serializer.serialize_some(&section),
        None => pairs.serialize(serializer),
    }
}

/// Reads an optional field of pairs, each as a `P`, whose errors say what a pair is. It checks on the way whether to stop.
pub(crate) fn optional_pairs<'de, D, P>(deserializer: D) -> Result<Option<Vec<[u32; 2]>>, D::Error>
where
    D: Deserializer<'de>,
    P: Deserialize<'de> + Into<[u32; 2]>,
{
    Ok(Option::<Pairs<P>>::deserialize(deserializer)?.map(|Pairs(pairs, _)| pairs))
}

struct Pairs<P>(Vec<[u32; 2]>, PhantomData<P>);

impl<'de, P: Deserialize<'de> + Into<[u32; 2]>> Deserialize<'de> for Pairs<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(PairsVisitor::<P>(PhantomData)).map(|pairs| Self(pairs, PhantomData))
    }
}

struct PairsVisitor<P>(PhantomData<P>);

impl<'de, P: Deserialize<'de> + Into<[u32; 2]>> Visitor<'de> for PairsVisitor<P> {
    type Value = Vec<[u32; 2]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Vec<[u32; 2]>, A::Error> {
        // In place: they have the same size.
        Ok(read_all::<P, A>(seq)?.into_iter().map(P::into).collect())
    }

    fn visit_u64<E: Error>(self, section: u64) -> Result<Vec<[u32; 2]>, E> {
        pairs_of_section(section, &self)
    }
}
