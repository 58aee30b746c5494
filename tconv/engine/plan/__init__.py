"""Problems, plans and their predicted cost."""
