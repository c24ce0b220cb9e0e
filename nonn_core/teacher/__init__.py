"""Teachers: trained classifiers, of this program or of anybody else."""
