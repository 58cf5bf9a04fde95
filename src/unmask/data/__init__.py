"""Sources, conventions, groups, splits and audits: folders of media become a table of samples."""
