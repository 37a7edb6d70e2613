"""The data set on disk: the features beside each clip, filelists, and the order of training batches."""
