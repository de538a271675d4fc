# Tables, figures and the page: from records alone.

REPORTING_CODE = code_digest(
    "reporting",
    "published",
    "data/registry.py",
    "data/statistics.py",
    "training/record.py",
    "benchmarks/speedup.py",
    "measures/flops.py",
    "analysis/artefact.py",
)

FIGURES = {
    "classification": [
        "accuracy_flops",
        "skim_rate",
        "training",
        "effects",
        "accuracy_threshold",
        "skimmed_tokens",
        "calibration",
    ],
    "question_answering": [
        "reading_training",
        "layer_skim_rate",
        "f1_sorted",
        "f1_threshold",
        "strips",
        "confidence",
        "reading_calibration",
    ],
}


rule tabulate_results:
    input:
        records=RECORDS,
        speeds=SPEEDS,
    output:
        report(
            expand(
                "reports/{scale}/{task}.{extension}",
                scale=SCALE,
                task=TASKS,
                extension=["md", "csv", "tex"],
            ),
            caption="../report/tables.rst",
            category="Tables",
        ),
    log:
        errors=f"logs/tabulate_results/{SCALE}.log",
        tables=f"logs/tabulate_results/{SCALE}.txt",
    params:
        results=lambda wildcards, input: Path(input.records[0]).parents[3],
        folder=subpath(output[0], parent=True),
        # What `data stats` counted, when it was asked to; a table of its own where it is there.
        counted=digests_of(Path("results"), f"{SCALE}/datasets.json"),
        code=REPORTING_CODE,
    shell:
        "python -m skimrnn table --results {params.results} --output {params.folder} > {log.tables} 2> {log.errors}"


rule try_claims:
    input:
        records=RECORDS,
        analyses=ANALYSES,
        speeds=SPEEDS,
    output:
        claims=report(
            f"reports/{SCALE}/claims.md",
            caption="../report/claims.rst",
            category="Claims",
        ),
        confidence=report(
            f"reports/{SCALE}/confidence.md",
            caption="../report/confidence.rst",
            category="Claims",
        ),
    log:
        f"logs/try_claims/{SCALE}.log",
    params:
        results=lambda wildcards, input: Path(input.records[0]).parents[3],
        folder=subpath(output.claims, parent=True),
        # Measured by itself, when there is time to leave the machine alone.
        measured=digests_of(Path("results"), "benchmark/*.json"),
        code=REPORTING_CODE,
    shell:
        "python -m skimrnn claims --results {params.results} --output {params.folder} 2> {log}"


rule draw_figures:
    input:
        records=records_of("classification"),
        analyses=beside(records_of("classification"), "analysis"),
    output:
        report(
            expand(
                "reports/{scale}/figures/{figure}.svg",
                scale=SCALE,
                figure=FIGURES["classification"],
            ),
            caption="../report/figures.rst",
            category="Figures",
        ),
        expand(
            "reports/{scale}/figures/{figure}.{extension}",
            scale=SCALE,
            figure=FIGURES["classification"],
            extension=["pdf", "png"],
        ),
    log:
        f"logs/draw_figures/{SCALE}.log",
    params:
        task="classification",
        results=lambda wildcards, input: Path(input.records[0]).parents[3],
        folder=lambda wildcards, output: Path(output[0]).parent,
        code=REPORTING_CODE,
    shell:
        "python -m skimrnn figures --task {params.task} --results {params.results} --output {params.folder} 2> {log}"


use rule draw_figures as draw_reading_figures with:
    input:
        records=records_of("question_answering"),
        analyses=beside(records_of("question_answering"), "analysis"),
    output:
        report(
            expand(
                "reports/{scale}/figures/{figure}.svg",
                scale=SCALE,
                figure=FIGURES["question_answering"],
            ),
            caption="../report/figures.rst",
            category="Figures",
        ),
        expand(
            "reports/{scale}/figures/{figure}.{extension}",
            scale=SCALE,
            figure=FIGURES["question_answering"],
            extension=["pdf", "png"],
        ),
    log:
        f"logs/draw_reading_figures/{SCALE}.log",
    params:
        task="question_answering",
        results=lambda wildcards, input: Path(input.records[0]).parents[3],
        folder=lambda wildcards, output: Path(output[0]).parent,
        code=REPORTING_CODE,


rule build_page:
    input:
        records=RECORDS,
        analyses=ANALYSES,
        timings=TIMINGS,
        speeds=SPEEDS,
        figures=[
            f"reports/{SCALE}/figures/{figure}.svg"
            for task in TASKS
            for figure in FIGURES[task]
        ],
    output:
        page=report(
            f"reports/{SCALE}/index.html",
            caption="../report/page.rst",
            category="Page",
        ),
    log:
        f"logs/build_page/{SCALE}.log",
    params:
        results=lambda wildcards, input: Path(input.records[0]).parents[3],
        figures=lambda wildcards, input: Path(input.figures[0]).parent,
        # Measured by themselves, when there is time to leave the machine alone; shown where they are there.
        measured=digests_of(
            Path("results"), "benchmark/*.json", f"{SCALE}/datasets.json"
        ),
        code=REPORTING_CODE,
    shell:
        "python -m skimrnn page --results {params.results} --figures {params.figures} --output {output.page} 2> {log}"
