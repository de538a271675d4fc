# The test split is read here, once, with the weights that validation chose. (SQuAD's is not public: for it the
# development set is both, as in the paper.)


rule evaluate_model:
    input:
        prepared=rules.prepare_dataset.output.folder,
        weights=rules.train_model.output.weights,
        training=rules.train_model.output.training,
        timing=rules.train_model.output.timing,
    output:
        record=f"results/{SCALE}/{{dataset}}/{{model}}/{{seed}}.json",
        timing=f"results/{SCALE}/{{dataset}}/{{model}}/{{seed}}.timing.json",
    log:
        f"logs/evaluate_model/{SCALE}/{{dataset}}/{{model}}/{{seed}}.log",
    benchmark:
        f"benchmarks/evaluate_model/{SCALE}/{{dataset}}/{{model}}/{{seed}}.tsv"
    wildcard_constraints:
        dataset=TO_BE_RUN.get("classification", "(?!)"),
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(60),
    params:
        run=subpath(input.weights, parent=True),
        code=code_digest(*TRAINING_CODE, "measures/flops.py"),
    shell:
        "python -m skimrnn evaluate --dataset {wildcards.dataset} --model {wildcards.model} --seed {wildcards.seed}"
        " --prepared {input.prepared} --run {params.run} --output {output.record} --threads {threads} 2> {log}"


use rule evaluate_model as evaluate_reader with:
    output:
        record=f"results/{SCALE}/{{dataset}}/{{model}}/{{seed}}.json",
        timing=f"results/{SCALE}/{{dataset}}/{{model}}/{{seed}}.timing.json",
        predictions=f"results/{SCALE}/{{dataset}}/{{model}}/{{seed}}.predictions.json",
    wildcard_constraints:
        dataset=TO_BE_RUN.get("question_answering", "(?!)"),


# Sp: of all models of a dataset in one job, which has the machine to itself.
rule measure_speed:
    input:
        prepared=rules.prepare_dataset.output.folder,
        weights=lambda wildcards: [
            f"runs/{SCALE}/{wildcards.dataset}/{model}/{seed}/weights.safetensors"
            for model in CONFIG.timed_models(wildcards.dataset)
            for seed in CONFIG.seeds_of(wildcards.dataset)
        ],
    output:
        speed=f"results/{SCALE}/{{dataset}}/speed.json",
    log:
        f"logs/measure_speed/{SCALE}/{{dataset}}.log",
    benchmark:
        f"benchmarks/measure_speed/{SCALE}/{{dataset}}.tsv"
    wildcard_constraints:
        dataset="|".join(TO_BE_RUN.values()),
    threads: workflow.cores
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        runs=lambda wildcards, input: Path(input.weights[0]).parents[3],
        settings=CONFIG.speed.model_dump_json(),
        code=code_digest("benchmarks", "kernels", "layers", "models"),
    shell:
        "python -m skimrnn speed --dataset {wildcards.dataset} --prepared {input.prepared} --runs {params.runs}"
        " --output {output.speed} 2> {log}"
