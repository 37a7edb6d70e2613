"""The data set on disk: feature files beside each clip, filelists, and the order of training batches."""
