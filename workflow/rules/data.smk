# Raw texts -> tokens -> word numbers and word vectors.

# Each sentence of a book stands in some twenty cloze texts: vectors are trained on other texts, where there are any.
VECTOR_TEXTS = [
    dataset for dataset in CONFIG.available if not DATASETS[dataset].cloze
] or CONFIG.available


rule fetch_dataset:
    output:
        folder=directory("data/raw/{source}/{dataset}"),
    log:
        "logs/fetch_dataset/{source}/{dataset}.log",
    benchmark:
        "benchmarks/fetch_dataset/{source}/{dataset}.tsv"
    resources:
        downloads=1,
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        mirror=mirror_stamps,
        code=code_digest(
            "data/registry.py",
            "data/sources.py",
            "data/schemas.py",
            "data/squad.py",
            "data/cloze.py",
            "data/embedded.py",
            "data/hub.py",
        ),
    shell:
        "python -m skimrnn fetch --dataset {wildcards.dataset} --output {output.folder} 2> {log}"


rule tokenise_dataset:
    input:
        raw=rules.fetch_dataset.output.folder,
    output:
        folder=directory("data/tokens/{source}/{dataset}"),
    log:
        "logs/tokenise_dataset/{source}/{dataset}.log",
    benchmark:
        "benchmarks/tokenise_dataset/{source}/{dataset}.tsv"
    threads: lambda wildcards: 1 if wildcards.source == "embedded" else 2
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        seed=CONFIG.data.seed,
        code=code_digest(
            "data/registry.py",
            "data/tokens.py",
            "data/treebank.py",
            "data/offsets.py",
            "data/squad.py",
            "data/cloze.py",
        ),
    shell:
        "python -m skimrnn tokenise --dataset {wildcards.dataset} --raw {input.raw} --output {output.folder}"
        " --processes {threads} 2> {log}"


rule make_vectors:
    input:
        tokens=(
            expand(
                "data/tokens/{source}/{dataset}",
                source=SOURCE,
                dataset=VECTOR_TEXTS,
            )
            if "corpus" in CONFIG.vectors.source
            else []
        ),
    output:
        vectors=f"data/vectors/{SCALE}.safetensors",
    log:
        f"logs/make_vectors/{SCALE}.log",
    benchmark:
        f"benchmarks/make_vectors/{SCALE}.tsv"
    resources:
        mem_mb=growing(6000),
        runtime=growing(120),
    params:
        folders=lambda wildcards, input: [
            f"--tokens {folder}" for folder in input.tokens
        ],
        settings=CONFIG.vectors.model_dump_json(),
        file=stamps_of([CONFIG.vectors.path] if CONFIG.vectors.path else []),
        code=code_digest("data/vectors.py", "data/download.py"),
    shell:
        "python -m skimrnn vectors {params.folders} --output {output.vectors} 2> {log}"


rule prepare_dataset:
    input:
        tokens=f"data/tokens/{SOURCE}/{{dataset}}",
        vectors=rules.make_vectors.output.vectors,
    output:
        folder=directory(f"data/prepared/{SCALE}/{{dataset}}"),
    log:
        f"logs/prepare_dataset/{SCALE}/{{dataset}}.log",
    benchmark:
        f"benchmarks/prepare_dataset/{SCALE}/{{dataset}}.tsv"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        code=code_digest(
            "data/batches.py",
            "data/prepare.py",
            "data/questions.py",
            "data/vectors.py",
        ),
    shell:
        "python -m skimrnn prepare --dataset {wildcards.dataset} --tokens {input.tokens} --vectors {input.vectors}"
        " --output {output.folder} 2> {log}"
