# One job a run: dataset x model x seed.


rule train_model:
    input:
        prepared=rules.prepare_dataset.output.manifest,
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
        mem_mb=2000,
    params:
        prepared=subpath(input.prepared, parent=True),
        folder=subpath(output.weights, parent=True),
        run=lambda wildcards: CONFIG.run(
            wildcards.dataset, wildcards.model, int(wildcards.seed)
        ).model_dump_json(),
        code=code_digest(*TRAINING_CODE),
    shell:
        "python -m skimrnn train --dataset {wildcards.dataset} --model {wildcards.model} --seed {wildcards.seed}"
        " --prepared {params.prepared} --output {params.folder} --threads {threads} 2> {log}"
