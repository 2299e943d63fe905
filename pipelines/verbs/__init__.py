"""What each verb of the command line does, a module for each kind; imported when a verb of it runs."""
