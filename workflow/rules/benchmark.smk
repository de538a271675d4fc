# How fast the layers are on this machine's CPU. Not part of the grid: `snakemake --cores all bench`.


rule measure_latency:
    output:
        measurements="results/benchmark/cpu.json",
    log:
        "logs/measure_latency/cpu.log",
    benchmark:
        "benchmarks/measure_latency/cpu.tsv"
    # Nothing else runs beside it.
    threads: workflow.cores
    params:
        code=code_digest(
            "benchmarks",
            "kernels",
            "layers",
            "models",
            "data/questions.py",
            "training/reading.py",
        ),
    shell:
        "python -m skimrnn bench --output {output.measurements} 2> {log}"


rule report_latency:
    input:
        measurements=rules.measure_latency.output.measurements,
        # Runs on other machines.
        others=sorted(
            str(path) for path in Path("results/benchmark").glob("cpu-*.json")
        ),
    output:
        table="reports/benchmark/benchmark.md",
        figures=expand(
            "reports/benchmark/{figure}.{extension}",
            figure=["speedup", "plain"],
            extension=["svg", "pdf", "png"],
        ),
    log:
        "logs/report_latency/cpu.log",
    params:
        folder=subpath(output.table, parent=True),
        code=REPORTING_CODE,
    shell:
        "python -m skimrnn bench-report --measurements {input.measurements} --output {params.folder} 2> {log}"
