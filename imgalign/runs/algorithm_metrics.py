"""Metrics that only some algorithms write, by their modules in `imgalign.algorithms`."""

from imgalign.runs.metric import Metric

POLICY_GRADIENT = ("policy_gradient",)
SUPERVISED = ("supervised",)
DIRECT = ("direct",)

OF_ALGORITHMS = (
    Metric(
        "kl",
        "KL to the reference",
        "nats",
        "KL(policy ‖ reference) per sample, on this iteration's samples and before its update: "
        "exact at every timestep, averaged over the samples.",
        "It is the cost at which the reward was gained; `run.kl_budget_nats` limits it.",
        "distance",
        POLICY_GRADIENT,
    ),
    Metric(
        "kl_per_step",
        "KL per timestep",
        "nats",
        "KL(policy ‖ reference) of one timestep, averaged over timesteps and samples.",
        "",
        "distance",
        POLICY_GRADIENT,
    ),
    Metric(
        "kl_coefficient",
        "KL coefficient",
        "advantage per nat",
        "Weight of one nat of KL in this iteration's loss.",
        "It changes only with `algorithm.kl.kind: adaptive`.",
        "distance",
        POLICY_GRADIENT,
    ),
    Metric(
        "policy_loss",
        "Policy loss",
        "advantage",
        "Clipped surrogate loss, averaged over timesteps. Before the first optimizer step it is "
        "minus the mean advantage, so close to 0.",
        "It does not measure progress.",
        "update",
        POLICY_GRADIENT,
    ),
    Metric(
        "ptx_loss",
        "Loss of the examples",
        "nats per element",
        "Mean of minus the log-probability of an element of the examples, `data.examples`, whose "
        "likelihood `algorithm.ptx` keeps.",
        "Where it rises, the model forgets what it could do before: raise `algorithm.ptx`.",
        "update",
        POLICY_GRADIENT,
    ),
    Metric(
        "loss",
        "Loss",
        "nats per element",
        "Weighted mean of minus the log-probability of the samples trained on, per element; "
        "for images half the mean squared error of the prediction.",
        "It varies with the noise levels drawn in an iteration; only its trend counts.",
        "update",
        SUPERVISED,
    ),
    Metric(
        "samples_used",
        "Samples used",
        "samples",
        "Samples with a weight above 0: with `weighting: best` the best of each prompt, more where "
        "several tie.",
        "",
        "update",
        SUPERVISED,
    ),
    Metric(
        "preference_loss",
        "Preference loss",
        "",
        "Mean loss of the rankings learned from. At the start it is 0.69 for pairs (log 2), 0.25 "
        "for IPO, 0.5 for KTO, 0 for cardinal, and for whole rankings minus the logarithm of "
        "their probability if all samples were alike.",
        "It varies with the noise levels drawn in an iteration; only its trend counts.",
        "update",
        DIRECT,
    ),
    Metric(
        "implicit_accuracy",
        "Implicit accuracy",
        "fraction",
        "Share of the pairs learned from whose better sample has the higher log-ratio of policy "
        "and reference; a half at the start.",
        "One noise level per image is a noisy measure: 60 to 70 % is a lot. Near 100 % the "
        "rankings are learned by heart.",
        "update",
        DIRECT,
    ),
    Metric(
        "implicit_margin",
        "Implicit margin",
        "",
        "Beta times the better sample's log-ratio less the worse one's, mean over pairs: the "
        "log-odds that the policy itself gives to the ranking.",
        "",
        "update",
        DIRECT,
    ),
    Metric(
        "negative_margins",
        "Negative margins",
        "fraction",
        "Share of pairs whose worse sample has the higher log-ratio.",
        "",
        "update",
        DIRECT,
    ),
    Metric(
        "gradient_factor",
        "Gradient factor",
        "fraction",
        "Mean of sigmoid(-margin): the weight that a pair has left in the gradient of DPO. A half "
        "at the start.",
        "Near 0 the policy is sure of all pairs and learns nothing more; beta is too large, or it "
        "has trained too long.",
        "update",
        DIRECT,
    ),
    Metric(
        "chosen_log_ratio",
        "Log-ratio of the best",
        "nats",
        "Log-probability of the best samples of the rankings under the policy less that under the "
        "reference.",
        "Below 0 and falling, the policy makes even the samples that people like less likely: "
        "raise `algorithm.sft` or set `algorithm.keep_chosen`.",
        "update",
        DIRECT,
    ),
    Metric(
        "rejected_log_ratio",
        "Log-ratio of the worst",
        "nats",
        "The same of the worst samples, and of those that are all bad.",
        "",
        "update",
        DIRECT,
    ),
    Metric(
        "push_limit",
        "Limit of the push",
        "fraction",
        "Mean factor by which `algorithm.keep_chosen` reduces the push away from worse samples; 1 "
        "without it.",
        "",
        "update",
        DIRECT,
    ),
    Metric(
        "beta",
        "Beta",
        "per nat",
        "Implicit reward per nat of log-ratio in this iteration.",
        "With `beta.kind: auto` it falls during the first steps and then stays.",
        "update",
        DIRECT,
    ),
    Metric(
        "reference_distance",
        "Distance of the reference",
        "nats",
        "Only with `algorithm.refresh`: the reference of implicit rewards is at most this far from "
        "the pretrained model, as the mean size of the log-ratio of the best samples. It is the "
        "sum over all refreshes.",
        "Near `algorithm.refresh.max_nats` the reference stays where it is.",
        "distance",
        DIRECT,
    ),
    Metric(
        "held_out_preference_loss",
        "Held-out preference loss",
        "",
        "The preference loss of held-out rankings, always with the same noise. Without a reward "
        "model it decides which checkpoint is best, and `run.patience` and `best.json` follow it.",
        "Rising, the policy learns its rankings by heart. Metrics of held-out rankings are missing "
        "where none of these prefers a sample to another, and this one while a beta that sets "
        "itself is not fixed yet.",
        "reward",
        DIRECT,
    ),
    Metric(
        "held_out_implicit_accuracy",
        "Held-out implicit accuracy",
        "fraction",
        "Implicit accuracy on held-out rankings, always with the same noise.",
        "",
        "reward",
        DIRECT,
    ),
    Metric(
        "held_out_implicit_margin",
        "Held-out implicit margin",
        "",
        "Implicit margin on held-out rankings, always with the same noise.",
        "",
        "reward",
        DIRECT,
    ),
    Metric(
        "held_out_chosen_log_ratio",
        "Best, held-out",
        "nats",
        "Log-ratio of the best samples of held-out rankings, always with the same noise.",
        "Falling for good, samples get worse while the margins still grow: "
        "`algorithm.max_chosen_drop` ends the run where it is twice below minus that.",
        "reward",
        DIRECT,
    ),
    Metric(
        "held_out_rejected_log_ratio",
        "Worst, held-out",
        "nats",
        "The same of the worst samples.",
        "",
        "reward",
        DIRECT,
    ),
    Metric(
        "log_ratio_max",
        "Largest log-ratio",
        "nats",
        "Largest absolute log(new probability / old probability) of one timestep.",
        "Exactly 0 with one minibatch and one inner epoch, because the sampler's own "
        "log-probabilities are the anchor.",
        "update",
        POLICY_GRADIENT,
    ),
    Metric(
        "clip_fraction",
        "Clip fraction",
        "fraction",
        "Share of timesteps whose log-ratio left the clip range.",
        "Above 0.3, lower the learning rate or the number of minibatches.",
        "update",
        POLICY_GRADIENT,
        limit=0.3,
    ),
    Metric(
        "approx_kl",
        "KL of one update",
        "nats",
        "KL(old ‖ new) per sample, estimated from the ratios (Schulman's k3) and averaged over all "
        "passes.",
        "It says how far one iteration moves the policy; above a few nats, the samples no longer "
        "describe the policy that is updated.",
        "update",
        POLICY_GRADIENT,
    ),
    Metric(
        "entropy_per_step",
        "Entropy per timestep",
        "nats",
        "Entropy of one timestep's distribution.",
        "Fixed by the sampler's noise for a diffusion policy.",
        "update",
        POLICY_GRADIENT,
    ),
    Metric(
        "advantage_abs_mean",
        "Size of the advantages",
        "advantage",
        "Mean absolute advantage after clipping, over the timesteps that are credited.",
        "About 0.8 when normalised; 0 where all rewards are equal and there is no signal.",
        "update",
        POLICY_GRADIENT,
    ),
    Metric(
        "useless_group_fraction",
        "Groups without a signal",
        "fraction",
        "Share of prompts whose samples all earned the same reward (group baselines only).",
        "Near 1, the reward cannot tell samples of one prompt apart.",
        "update",
        POLICY_GRADIENT,
    ),
    Metric(
        "value_loss",
        "Value loss",
        "squared standard deviations",
        "Loss of the value estimator before its update in this iteration (value estimator only).",
        "",
        "update",
        POLICY_GRADIENT,
    ),
    Metric(
        "explained_variance",
        "Explained variance",
        "fraction",
        "Share of the reward's variance that the value estimator predicted (value estimator only).",
        "1 is all, 0 none; below 0 it is worse than a constant.",
        "update",
        POLICY_GRADIENT,
    ),
)
