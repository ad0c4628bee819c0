"""Training objectives on trees and taxonomies, and the rivals that they are compared with."""
