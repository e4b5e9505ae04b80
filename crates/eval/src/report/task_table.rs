//! Success of every task, for any page.

use crate::html::escape;
use crate::score::TaskScore;
use crate::svg;

/// A card with the success of every task and its interval as a bar.
pub(super) fn scores_table(scores: &[TaskScore]) -> String {
    let rows: String = scores.iter().map(score_row).collect();
    format!(
        "<div class=\"card\"><div class=\"scroll\"><table><tr><th>task</th><th>episodes</th><th>solved</th><th>rate</th>\
         <th>95 % interval</th><th class=\"left\">0 to 100 %</th><th>mean steps</th></tr>{rows}</table></div></div>\n"
    )
}

fn score_row(score: &TaskScore) -> String {
    let (low, high) = score.interval;
    format!(
        "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.0} %</td><td>{:.0} to {:.0} %</td><td class=\"bar\">{}</td><td>{:.0}</td></tr>",
        escape(&score.task),
        score.rate.n,
        score.rate.k,
        100.0 * score.rate.fraction(),
        100.0 * low,
        100.0 * high,
        svg::interval(score.rate),
        score.mean_steps,
    )
}
