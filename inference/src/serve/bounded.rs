//! Messages whose parts are counted before they are decoded.
//!
//! Two bytes of a message can ask for a part that takes hundreds in memory, and a decoder makes them all before anybody can say that
//! there are too many. So the bytes are walked first, in place.

use std::marker::PhantomData;

use prost::Message;
use prost::bytes::Buf as _;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic::server::Grpc;
use tonic_prost::ProstCodec;

use super::answer::Refused;
use super::config::ServeLimits;
use super::proto::inference::ModelInferRequest;
use super::proto::policy::{DecideBatchRequest, SessionRequest};

/// What a message has many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Questions,
    Events,
    Inputs,
    Outputs,
    RawInputs,
    Parameters,
    Texts,
}

/// How many parts of each kind there are.
type Counts = [usize; Part::ALL.len()];

/// A field that is counted or has counted fields inside.
struct Field {
    number: u64,
    part: Option<Part>,
    inside: &'static [Field],
}

/// A message that has parts which are counted.
pub(super) trait Parts: Message + Default + 'static {
    /// Where they stand.
    #[expect(private_interfaces, reason = "only this module reads it")]
    const FIELDS: &'static [Field];
}

/// How many parts a message may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    questions: usize,
    events: usize,
}

/// Reads messages of one type with their parts counted, and writes answers.
#[derive(Debug)]
pub(super) struct Bounded<E, D> {
    bounds: Bounds,
    types: PhantomData<(E, D)>,
}

/// Reads messages with their parts counted.
#[derive(Debug)]
pub(super) struct Counting<D> {
    bounds: Bounds,
    message: PhantomData<D>,
}

/// Most tensors of a question or an answer, far more than any model has.
const MAX_TENSORS: usize = 16;
/// Most parameters of a question and its tensors, and most texts in tensors, which no model takes.
const MAX_PARAMETERS: usize = 64;

const fn counted(number: u64, part: Part, inside: &'static [Field]) -> Field {
    Field { number, part: Some(part), inside }
}

const fn within(number: u64, inside: &'static [Field]) -> Field {
    Field { number, part: None, inside }
}

#[expect(private_interfaces, reason = "only this module reads it")]
impl Parts for DecideBatchRequest {
    const FIELDS: &'static [Field] = &[counted(1, Part::Questions, &[])];
}

#[expect(private_interfaces, reason = "only this module reads it")]
impl Parts for SessionRequest {
    const FIELDS: &'static [Field] = &[within(2, &[counted(2, Part::Events, &[])])];
}

#[expect(private_interfaces, reason = "only this module reads it")]
impl Parts for ModelInferRequest {
    const FIELDS: &'static [Field] = &[
        counted(4, Part::Parameters, &[]),
        counted(5, Part::Inputs, &[counted(4, Part::Parameters, &[]), within(5, &[counted(8, Part::Texts, &[])])]),
        counted(6, Part::Outputs, &[counted(2, Part::Parameters, &[])]),
        counted(7, Part::RawInputs, &[]),
    ];
}

impl Part {
    const ALL: [Part; 7] =
        [Part::Questions, Part::Events, Part::Inputs, Part::Outputs, Part::RawInputs, Part::Parameters, Part::Texts];

    fn name(self) -> &'static str {
        match self {
            Part::Questions => "questions in a batch",
            Part::Events => "events in a message",
            Part::Inputs => "inputs",
            Part::Outputs => "outputs",
            Part::RawInputs => "entries of raw_input_contents",
            Part::Parameters => "parameters",
            Part::Texts => "entries of bytes_contents",
        }
    }
}

impl Bounds {
    pub(super) fn of(limits: &ServeLimits) -> Self {
        Bounds { questions: limits.batch, events: limits.events_per_message }
    }

    fn most(&self, part: Part) -> usize {
        match part {
            Part::Questions => self.questions,
            Part::Events => self.events,
            Part::Inputs | Part::Outputs | Part::RawInputs => MAX_TENSORS,
            Part::Parameters | Part::Texts => MAX_PARAMETERS,
        }
    }

    /// Refuses a message with too many parts. One that is no message is left to the decoder where that meets the fault before any
    /// part which was not counted; a group, which the decoder would pass over, is refused here.
    fn check<D: Parts>(&self, bytes: &[u8]) -> Result<(), Refused> {
        let mut counts = Counts::default();
        let walked = walk(bytes, D::FIELDS, &mut counts);
        for part in Part::ALL {
            let (found, limit) = (counts[part as usize], self.most(part));
            if found > limit {
                return Err(Refused::TooMany { what: part.name(), found, limit });
            }
        }
        walked.ok_or_else(|| {
            Refused::Malformed(
                "the message is no protobuf of this protocol: make it with the .proto files of this version".to_owned(),
            )
        })
    }
}

/// Counts parts; `None` where the bytes are no message.
fn walk(mut bytes: &[u8], fields: &'static [Field], counts: &mut Counts) -> Option<()> {
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let field = fields.iter().find(|field| field.number == key >> 3);
        if field.is_some() && key & 7 != 2 {
            // The decoder takes an entry of a map for what it is whatever its key says of its form.
            return None;
        }
        let length = match key & 7 {
            0 => {
                varint(&mut bytes)?;
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let value = bytes.split_off(..length)?;
        if let Some(Field { part, inside, .. }) = field {
            if let Some(part) = part {
                counts[*part as usize] += 1;
            }
            if !inside.is_empty() {
                walk(value, inside, counts)?;
            }
        }
    }
    Some(())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

impl<E, D> Bounded<E, D> {
    /// How calls of one kind are read and written; `bytes` is the most that a message has.
    pub(super) fn grpc(bounds: Bounds, bytes: usize) -> Grpc<Self>
    where
        Self: Codec,
    {
        Grpc::new(Bounded { bounds, types: PhantomData }).max_decoding_message_size(bytes)
    }
}

impl<E: Message + Send + 'static, D: Parts + Send> Codec for Bounded<E, D> {
    type Encode = E;
    type Decode = D;
    type Encoder = <ProstCodec<E, D> as Codec>::Encoder;
    type Decoder = Counting<D>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<E, D>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Counting { bounds: self.bounds, message: PhantomData }
    }
}

impl<D: Parts + Send> Decoder for Counting<D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        let bytes = buf.copy_to_bytes(buf.remaining());
        self.bounds.check::<D>(&bytes)?;
        D::decode(bytes).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use bellwether_env_adapter::proto::Event;
    use proptest::prelude::*;

    use super::*;
    use crate::serve::proto::inference::model_infer_request::InferInputTensor;
    use crate::serve::proto::policy::session_request::Message as Said;
    use crate::serve::proto::policy::{DecideRequest, Events};

    const BOUNDS: Bounds = Bounds { questions: 3, events: 5 };

    fn counts<D: Parts>(bytes: &[u8]) -> Option<Counts> {
        let mut counts = Counts::default();
        walk(bytes, D::FIELDS, &mut counts).map(|()| counts)
    }

    #[test]
    fn one_part_too_many_is_refused_by_its_name() {
        fn check<D: Parts>(message: &D, expected: Option<&str>) {
            let found = BOUNDS.check::<D>(&message.encode_to_vec()).err().map(|refused| refused.to_string());
            assert_eq!(found.as_deref(), expected);
        }
        let batch = |rows| DecideBatchRequest { requests: vec![DecideRequest::default(); rows] };
        check(&batch(3), None);
        check(
            &batch(4),
            Some("questions in a batch: 4 is more than the 3 that are answered at once: send smaller ones"),
        );
        let events = |count| SessionRequest {
            message: Some(Said::Events(Events { episode_id: "a".to_owned(), events: vec![Event::default(); count] })),
        };
        check(&events(5), None);
        check(
            &events(6),
            Some("events in a message: 6 is more than the 5 that are answered at once: send smaller ones"),
        );
        let inputs = |count| ModelInferRequest {
            inputs: vec![InferInputTensor::default(); count],
            ..ModelInferRequest::default()
        };
        check(&inputs(16), None);
        check(&inputs(17), Some("inputs: 17 is more than the 16 that are answered at once: send smaller ones"));
        // Said in two pieces, which a decoder joins.
        let twice = [events(3).encode_to_vec(), events(3).encode_to_vec()].concat();
        assert!(matches!(BOUNDS.check::<SessionRequest>(&twice), Err(Refused::TooMany { found: 6, limit: 5, .. })));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for bytes in [&[0x0b_u8, 0x0c][..], &[0x0a, 5, 1], &[0x80], &[0xff; 11], &[0x09, 1]] {
            assert!(BOUNDS.check::<DecideBatchRequest>(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn an_entry_of_a_map_is_none_in_another_form() {
        // A parameter whose key says that a number follows, which the decoder reads as an entry all the same.
        let bytes = [4 << 3, 0];
        assert_eq!(ModelInferRequest::decode(&bytes[..]).unwrap().parameters.len(), 1);
        assert!(matches!(BOUNDS.check::<ModelInferRequest>(&bytes), Err(Refused::Malformed(_))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn no_part_escapes_the_count(parts in proptest::collection::vec((0..80_u8, 0..3_u8, 0..4_u8), 0..40)) {
            // Bytes that often are messages: keys of low fields, short lengths, numbers.
            let mut bytes = Vec::new();
            for (key, length, fill) in parts {
                bytes.extend([key, length]);
                bytes.extend(std::iter::repeat_n(fill, usize::from(length)));
            }
            let (batch, session) = (DecideBatchRequest::decode(&bytes[..]), SessionRequest::decode(&bytes[..]));
            if let (Ok(batch), Some(counts)) = (batch, counts::<DecideBatchRequest>(&bytes)) {
                prop_assert_eq!(batch.requests.len(), counts[Part::Questions as usize]);
            }
            if let (Ok(SessionRequest { message: Some(Said::Events(events)) }), Some(counts)) =
                (session, counts::<SessionRequest>(&bytes))
            {
                prop_assert!(events.events.len() <= counts[Part::Events as usize]);
            }
            if let (Ok(infer), Some(counts)) =
                (ModelInferRequest::decode(&bytes[..]), counts::<ModelInferRequest>(&bytes))
            {
                prop_assert_eq!(infer.inputs.len(), counts[Part::Inputs as usize]);
                prop_assert_eq!(infer.outputs.len(), counts[Part::Outputs as usize]);
                prop_assert_eq!(infer.raw_input_contents.len(), counts[Part::RawInputs as usize]);
                prop_assert!(infer.parameters.len() <= counts[Part::Parameters as usize]);
            }
        }

        #[test]
        fn messages_are_counted_as_they_are_decoded(questions in 0..20_usize, width in 0..40_usize, inputs in 0..20_usize) {
            let question = DecideRequest { state: vec![0.5; width], target_fpr: Some(0.1), ..DecideRequest::default() };
            let batch = DecideBatchRequest { requests: vec![question; questions] };
            prop_assert_eq!(counts::<DecideBatchRequest>(&batch.encode_to_vec()).unwrap()[Part::Questions as usize], questions);
            let input = InferInputTensor { name: "state".to_owned(), shape: vec![1; width], ..InferInputTensor::default() };
            let infer = ModelInferRequest { inputs: vec![input; inputs], ..ModelInferRequest::default() };
            prop_assert_eq!(counts::<ModelInferRequest>(&infer.encode_to_vec()).unwrap()[Part::Inputs as usize], inputs);
        }
    }
}
