"""Systems of the paper's tables that MMDetection lacks: AugFPN, Guided Loss. Not: the weighting itself."""
