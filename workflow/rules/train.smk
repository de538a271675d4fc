# One job a run: dataset x model x seed; and one for the first steps that several runs share.


rule train_first_steps:
    input:
        prepared=rules.prepare_dataset.output.folder,
    output:
        weights=f"runs/{SCALE}/{{dataset}}/{{model}}/{{seed}}/step-{{step}}.safetensors",
    log:
        f"logs/train_first_steps/{SCALE}/{{dataset}}/{{model}}/{{seed}}-{{step}}.log",
    benchmark:
        f"benchmarks/train_first_steps/{SCALE}/{{dataset}}/{{model}}/{{seed}}-{{step}}.tsv"
    threads: 1
    resources:
        mem_mb=growing(3000),
        # It goes on from its checkpoint at the next attempt.
        runtime=growing(720),
    params:
        folder=subpath(output.weights, parent=True),
        run=lambda wildcards: CONFIG.run(
            wildcards.dataset, wildcards.model, int(wildcards.seed)
        ).model_dump_json(),
        code=code_digest(*TRAINING_CODE),
    shell:
        "python -m skimrnn train --dataset {wildcards.dataset} --model {wildcards.model} --seed {wildcards.seed}"
        " --prepared {input.prepared} --output {params.folder} --threads {threads} --until {wildcards.step} 2> {log}"


rule train_model:
    input:
        prepared=rules.prepare_dataset.output.folder,
        first=first_steps,
    output:
        weights=f"runs/{SCALE}/{{dataset}}/{{model}}/{{seed}}/weights.safetensors",
        training=f"runs/{SCALE}/{{dataset}}/{{model}}/{{seed}}/training.json",
        timing=f"runs/{SCALE}/{{dataset}}/{{model}}/{{seed}}/timing.json",
    log:
        f"logs/train_model/{SCALE}/{{dataset}}/{{model}}/{{seed}}.log",
    benchmark:
        f"benchmarks/train_model/{SCALE}/{{dataset}}/{{model}}/{{seed}}.tsv"
    threads: 1
    resources:
        mem_mb=growing(3000),
        # It goes on from its checkpoint at the next attempt.
        runtime=growing(720),
    params:
        folder=subpath(output.weights, parent=True),
        run=lambda wildcards: CONFIG.run(
            wildcards.dataset, wildcards.model, int(wildcards.seed)
        ).model_dump_json(),
        start=start_option,
        code=code_digest(*TRAINING_CODE),
    shell:
        "python -m skimrnn train --dataset {wildcards.dataset} --model {wildcards.model} --seed {wildcards.seed}"
        " --prepared {input.prepared} --output {params.folder} --threads {threads} {params.start} 2> {log}"
