"""Key folders: the enrolment authority's and each client's, and how a party reads them."""
