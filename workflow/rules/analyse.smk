# What trained models do token by token: threshold sweeps, confidence, what is skimmed. Nothing is trained.


rule analyse_model:
    input:
        prepared=rules.prepare_dataset.output.folder,
        tokens=rules.prepare_dataset.input.tokens,
        weights=rules.train_model.output.weights,
        training=rules.train_model.output.training,
    output:
        analysis=f"results/{SCALE}/{{dataset}}/{{model}}/{{seed}}.analysis.json",
    log:
        f"logs/analyse_model/{SCALE}/{{dataset}}/{{model}}/{{seed}}.log",
    benchmark:
        f"benchmarks/analyse_model/{SCALE}/{{dataset}}/{{model}}/{{seed}}.tsv"
    wildcard_constraints:
        dataset="|".join(TO_BE_RUN.values()),
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        runs=lambda wildcards, input: Path(input.weights).parents[3],
        results=lambda wildcards, output: Path(output.analysis).parents[2],
        code=code_digest(*ANALYSIS_CODE),
    shell:
        "python -m skimrnn analyse --dataset {wildcards.dataset} --model {wildcards.model} --seed {wildcards.seed}"
        " --prepared {input.prepared} --tokens {input.tokens} --runs {params.runs} --output {params.results}"
        " --threads {threads} 2> {log}"
