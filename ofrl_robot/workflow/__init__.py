"""From the files of a training run to the verdict, the checkpoint to deploy, and the next run."""
