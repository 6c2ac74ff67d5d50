"""Jobs on a cluster, through its dashboard."""
