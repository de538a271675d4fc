# Tables, figures and the page: from records alone.

REPORTING_CODE = code_digest(
    "reporting",
    "published",
    "data/registry.py",
    "data/statistics.py",
    "training/record.py",
    "measures/speedup.py",
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
        expand(
            "reports/{scale}/{task}.{extension}",
            scale=SCALE,
            task=CONFIG.tasks,
            extension=["md", "csv", "tex"],
        ),
    log:
        f"logs/tabulate_results/{SCALE}.log",
    params:
        results=lambda wildcards, input: Path(input.records[0]).parents[3],
        folder=subpath(output[0], parent=True),
        code=REPORTING_CODE,
    shell:
        "python -m skimrnn table --results {params.results} --output {params.folder} > /dev/null 2> {log}"


rule try_claims:
    input:
        records=RECORDS,
        analyses=ANALYSES,
        speeds=SPEEDS,
    output:
        claims=f"reports/{SCALE}/claims.md",
        confidence=f"reports/{SCALE}/confidence.md",
    log:
        f"logs/try_claims/{SCALE}.log",
    params:
        results=lambda wildcards, input: Path(input.records[0]).parents[3],
        folder=subpath(output.claims, parent=True),
        code=REPORTING_CODE,
    shell:
        "python -m skimrnn claims --results {params.results} --output {params.folder} 2> {log}"


rule draw_figures:
    input:
        records=RECORDS,
        analyses=ANALYSES,
    output:
        expand(
            "reports/{scale}/figures/{figure}.{extension}",
            scale=SCALE,
            figure=[figure for task in CONFIG.tasks for figure in FIGURES[task]],
            extension=["svg", "pdf", "png"],
        ),
    log:
        f"logs/draw_figures/{SCALE}.log",
    params:
        results=lambda wildcards, input: Path(input.records[0]).parents[3],
        folder=lambda wildcards, output: Path(output[0]).parent,
        code=REPORTING_CODE,
    shell:
        "python -m skimrnn figures --results {params.results} --output {params.folder} 2> {log}"


rule build_page:
    input:
        records=RECORDS,
        analyses=ANALYSES,
        speeds=SPEEDS,
        figures=rules.draw_figures.output,
    output:
        page=f"reports/{SCALE}/index.html",
    log:
        f"logs/build_page/{SCALE}.log",
    params:
        results=lambda wildcards, input: Path(input.records[0]).parents[3],
        figures=lambda wildcards, input: Path(input.figures[0]).parent,
        code=REPORTING_CODE,
    shell:
        "python -m skimrnn page --results {params.results} --figures {params.figures} --output {output.page} 2> {log}"
