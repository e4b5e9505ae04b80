//! What a policy learns from: the imitation loss, and auxiliary objectives beside it.
//!
//! An auxiliary objective is one file and one line in [`ALL`]. The file has its labels, head, loss and metric, behind
//! the trait [`Objective`].

pub(crate) mod auxiliary;
pub(crate) mod confidence;
pub(crate) mod grounding;
pub(crate) mod imitation;
pub(crate) mod naming;
pub(crate) mod objective;
pub(crate) mod patches;
pub(crate) mod pointing;
pub(crate) mod recognition;

use crate::corpus::Knowledge;
use crate::parameters::TrainingHead;
use objective::{Need, Objective, Sample, Stage, Term};

/// The auxiliary objectives, in the order in which their losses are added up and their heads follow the parameters.
const ALL: &[&dyn Objective] = &[
    &confidence::Confidence,
    &auxiliary::Auxiliary,
    &grounding::Grounding,
    &recognition::Recognition,
    &pointing::Pointing,
    &naming::Naming,
];

/// Number of auxiliary objectives.
const COUNT: usize = ALL.len();

/// A number for every auxiliary objective: its weight, or its loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PerObjective([f32; COUNT]);

impl Default for PerObjective {
    /// Zeros.
    fn default() -> Self {
        Self([0.0; COUNT])
    }
}

impl PerObjective {
    /// The weights where the configuration names none.
    pub(crate) fn default_weights() -> Self {
        Self(std::array::from_fn(|i| ALL[i].default_weight()))
    }

    /// Names and numbers, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, f32)> {
        names().zip(self.0)
    }

    /// The number of the objective `name`.
    pub(crate) fn get(&self, name: &str) -> Option<f32> {
        self.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// The number of the objective `name`, to be changed.
    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut f32> {
        names().position(|other| other == name).map(|i| &mut self.0[i])
    }

    /// Combines two numbers per objective.
    pub(crate) fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }

    /// The terms of a batch for these weights, one per objective; `None` where an objective does not take part.
    pub(crate) fn terms(&self, sample: &Sample) -> Terms {
        let term = |i: usize| if ALL[i].is_active(self.0[i]) { ALL[i].term(sample) } else { None };
        Terms(std::array::from_fn(term))
    }

    /// The heads that training adds for these weights, in order.
    pub(crate) fn heads(&self, knowledge: &Knowledge) -> Vec<TrainingHead> {
        let active = ALL.iter().zip(self.0).filter(|(_, weight)| *weight > 0.0);
        active.filter_map(|(objective, _)| objective.head(knowledge)).collect()
    }

    /// Name, weight and missing column of the first objective with a weight whose labels no data set has.
    pub(crate) fn first_unlabelled(&self, knowledge: &Knowledge) -> Option<(&'static str, f32, &'static str)> {
        let active = ALL.iter().zip(self.0).filter(|(_, weight)| *weight > 0.0);
        let missing = |need: &Need| match need {
            Need::Grounding => (knowledge.n_point == 0).then_some("grounding"),
            Need::Things => knowledge.classes.is_none().then_some("things"),
        };
        let mut unlabelled = active.filter_map(|(objective, weight)| {
            Some((objective.name(), weight, objective.needs().iter().find_map(missing)?))
        });
        unlabelled.next()
    }

    /// Name and weight of the first objective with a weight that has no effect on frozen encoders.
    pub(crate) fn first_of_encoders(&self) -> Option<(&'static str, f32)> {
        let mut of_encoders = ALL.iter().zip(self.0).filter(|(objective, _)| objective.stage() == Stage::Encoders);
        of_encoders.find(|(_, weight)| *weight != 0.0).map(|(objective, weight)| (objective.name(), weight))
    }

    /// The number at the place of a term.
    pub(crate) fn at(&self, place: usize) -> f32 {
        self.0[place]
    }

    /// Sets the number at the place of a term.
    pub(crate) fn set_at(&mut self, place: usize, value: f32) {
        self.0[place] = value;
    }
}

/// The losses of one batch, one per auxiliary objective.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms([Option<Term>; COUNT]);

impl Terms {
    /// Sets the term of the objective `name`.
    pub(crate) fn set(&mut self, name: &str, term: Term) {
        let place = names().position(|other| other == name).expect("the objective is listed");
        self.0[place] = Some(term);
    }

    /// The terms that take part, with their places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Term)> {
        self.0.iter().enumerate().filter_map(|(place, term)| Some((place, term.as_ref()?)))
    }
}

/// Names of the auxiliary objectives, in order.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|objective| objective.name())
}

/// Colours of their curves, in the same order.
pub(crate) fn colours() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|objective| objective.colour())
}
