//! The model as a differentiable graph.
//!
//! Parameters have the names and shapes of [`robomamba_model::param_specs`]. The graph is the runtime's function on a
//! batch: distinct frames and instructions are encoded once, then gathered into the steps of the episodes.
//!
//! ```text
//! patches_i = vision(camera_i), without the class token
//! words     = text(instruction)
//! kv        = norm_kv(concat over cameras of (vision_proj(patches_i) + camera_embedding[i]), text_proj(words))
//! x         = query + reshape(query_text(mean(words)), [n_query, d])
//! per layer   x += out_proj(MHA(q_proj(norm_q(x)), k_proj(kv), v_proj(kv)));  x += mlp(norm_mlp(x))
//! token     = out_proj(flatten(norm_out(x))) + state_proj(normalised state)
//! h         = norm_f(blocks(token)), carried along the episode
//! x         = gelu(fc2(gelu(fc1(h))));  chunks = fc3(x) of every mode, mode(x) their logits
//! success   = fc2(gelu(fc1(h)))
//! ```

pub(crate) mod batch;
mod connector;
mod heads;
pub(crate) mod layers;
mod mamba;
pub(crate) mod policy;
mod text;
mod transformer;
mod vision;
