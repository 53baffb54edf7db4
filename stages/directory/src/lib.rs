//! Who exists and where they live: accounts, aliases and domains, with caches that outlive the master.
