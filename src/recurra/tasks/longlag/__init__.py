"""Problems that a network solves only if it carries something over many steps."""
