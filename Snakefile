# Neural Speed Reading via Skim-RNN: the paper as a DAG.
#
#   snakemake --cores 8                                     the paper's grid (config/paper.yaml)
#   snakemake --cores 2 --configfile config/smoke.yaml      the same rules on small embedded corpora
import os
import sys

from snakemake.utils import min_version

min_version("9.0")

# Snakemake imports from this folder first. Where Python is told not to, as in an image, the workflow and the commands
# that it calls are to be of one package.
if sys.flags.safe_path:
    sys.path = [folder for folder in sys.path if folder != str(workflow.basedir)]

# A --config that overrides single values may still be there.
if not workflow.overwrite_configfiles:

    configfile: "config/paper.yaml"


# Used with `--software-deployment-method apptainer` alone; otherwise rules run in the environment that snakemake runs in.
container: os.environ.get("SKIMRNN_IMAGE", "skimrnn.sif")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/analyse.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/benchmark.smk"


localrules:
    all,
    bench,


rule all:
    default_target: True
    input:
        # Named although the page needs them: where it is there, what it lacks would not be missed.
        RECORDS,
        ANALYSES,
        PREDICTIONS,
        SPEEDS,
        f"reports/{SCALE}/index.html",
        f"reports/{SCALE}/claims.md",
        expand("reports/{scale}/{task}.md", scale=SCALE, task=TASKS),


rule bench:
    input:
        "reports/benchmark/benchmark.md",
