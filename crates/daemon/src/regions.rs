//! What operators do to the regions of a cluster: list, add, drain, remove; and whether it may be done now.
//!
//! Any member may be asked, but a region that lives leaves by its own word: its removal and the end of its draining are
//! made at that region only, one after the other, so that no write is acknowledged between the look that says it may go
//! and its going. A change is made in the document, which merges with those of the others; see `members.rs`.

use tombolo_causality::{RegionId, Seq, ShardId};
use tombolo_codec::{MemberEntry, Membership, MembershipError, Reject, RejectCode, Standing};
use tombolo_gateway::regions::{RegionEntry, Regions, RegionsRequest, Unacknowledged};
use tombolo_replica::Lack;

use crate::mesh::PeerLink;
use crate::service::Region;

/// Gaps named in a refusal; there may be thousands.
const NAMED_MAX: usize = 5;

fn refused(error: &MembershipError) -> Reject {
    let code = match error {
        MembershipError::Unknown(_) => RejectCode::UnknownRegion,
        MembershipError::TooLong(_) => RejectCode::TooLarge,
        _ => RejectCode::Precondition,
    };
    Reject::new(code, error.to_string())
}

/// A change of the document, with its refusal in a caller's words.
fn or_reject<T>(
    change: impl FnOnce(&mut Membership) -> Result<T, MembershipError>,
) -> impl FnOnce(&mut Membership) -> Result<(), Reject> {
    move |document| change(document).map(drop).map_err(|error| refused(&error))
}

fn unmet(text: impl Into<String>) -> Reject {
    Reject::new(RejectCode::Precondition, text)
}

impl Region {
    /// Every region that ever was, as this one knows it.
    pub(crate) async fn list_regions(
        &self,
        is_changed: bool,
        unacknowledged: Vec<Unacknowledged>,
    ) -> Regions {
        let shared = self.shared();
        let members = &shared.mesh.members;
        let document = members.document();
        let mut regions = Vec::new();
        for entry in document.entries() {
            let is_own = entry.region == shared.identity.region;
            let link = shared.mesh.link(entry.region).unwrap_or_default();
            let drained = match entry.standing {
                Standing::Draining => Some(self.check_drained(entry.region, &document).await.is_ok()),
                Standing::Member | Standing::Removed => None,
            };
            let said = if is_own { Some(members.applied()) } else { link.epoch.map(|_| link.revision) };
            regions.push(RegionEntry {
                id: entry.region.get(),
                name: entry.name.clone(),
                advertise: entry.advertise.clone(),
                standing: entry.standing.name().to_owned(),
                link: if is_own {
                    "self"
                } else if link.is_up {
                    "up"
                } else {
                    "down"
                }
                .to_owned(),
                revision: said,
                drained,
                shards_without_heir: self.shards_without_heir(entry.region).await,
            });
        }
        Regions {
            schema: "tombolo.regions/v1".to_owned(),
            revision: document.revision(),
            changed: is_changed,
            regions,
            unacknowledged,
        }
    }

    async fn shards_without_heir(&self, region: RegionId) -> usize {
        let shared = self.shared();
        if shared.mesh.members.document().is_present(region) {
            return 0;
        }
        let mut count = 0;
        for shard in shared.shards.ids() {
            let look = move |replica: &tombolo_replica::Replica, _| replica.without_heir().contains(&region);
            count += usize::from(shared.shards.inspect(shard, look).await.unwrap_or(false));
        }
        count
    }

    /// Makes a change, if it may be made.
    pub(crate) async fn change_members(&self, request: RegionsRequest) -> Result<Regions, Reject> {
        let shared = self.shared();
        let own = shared.mesh.members.name(shared.identity.region);
        // Asked once more to leave it may say that it has.
        let is_own_removal = matches!(&request, RegionsRequest::Remove { name, .. } if *name == own);
        if shared.mesh.members.standing() == Standing::Removed && !is_own_removal {
            return Err(Reject::new(
                RejectCode::Removed,
                "this region was removed from its cluster: ask one that was not",
            ));
        }
        let mut unacknowledged = Vec::new();
        let is_changed = match request {
            RegionsRequest::Add { name, id, advertise } => {
                let region = RegionId::new(id).map_err(|_| {
                    Reject::new(RejectCode::Malformed, format!("{id} is no region id: 1 to 1023"))
                })?;
                if !tombolo_transport::region_name_is_valid(&name) {
                    let text = format!("`{name}` cannot name a region");
                    return Err(Reject::new(RejectCode::Malformed, text));
                }
                if let Err(reason) = crate::config::check_address(&advertise) {
                    let text = format!("`advertise` cannot be `{advertise}`: {reason}; it is HOST:PORT");
                    return Err(Reject::new(RejectCode::Malformed, text));
                }
                shared.mesh.change(or_reject(move |document| document.add(region, &name, &advertise))).await?
            }
            RegionsRequest::Drain { name, undo: false } => {
                shared.mesh.change(or_reject(move |document| document.drain(&name))).await?
            }
            RegionsRequest::Drain { name, undo: true } => {
                self.check_is_own(&self.entry(&name)?, "undo its draining")?;
                self.set_standing(name, Standing::Member).await?
            }
            RegionsRequest::Remove { name, dead, accept_risk } => {
                let entry = self.entry(&name)?;
                if entry.standing == Standing::Removed {
                    false
                } else if dead {
                    if name == own {
                        return Err(unmet(format!(
                            "region {name} answers, so it is not dead: `tombolo region drain {name}`, then \
                             `tombolo region remove {name}`"
                        )));
                    }
                    unacknowledged = self.check_risk(entry.region, accept_risk).await?;
                    self.set_standing(name, Standing::Removed).await?
                } else {
                    self.check_is_own(&entry, "remove it")?;
                    self.check_may_go(&entry).await?;
                    shared.mesh.change(or_reject(move |document| document.leave(&entry))).await?
                }
            }
        };
        Ok(self.list_regions(is_changed, unacknowledged).await)
    }

    fn entry(&self, name: &str) -> Result<MemberEntry, Reject> {
        let document = self.shared().mesh.members.document();
        document.named(name).cloned().ok_or_else(|| refused(&MembershipError::Unknown(name.to_owned())))
    }

    /// Only the region itself knows that no write was acknowledged since it was looked at.
    fn check_is_own(&self, entry: &MemberEntry, what: &str) -> Result<(), Reject> {
        if entry.region == self.shared().identity.region {
            return Ok(());
        }
        let name = &entry.name;
        Err(unmet(format!(
            "ask region {name} itself to {what} (--region {name}); nothing was changed. If {name} is gone for good: \
             `tombolo region remove {name} --dead`"
        )))
    }

    async fn set_standing(&self, name: String, standing: Standing) -> Result<bool, Reject> {
        self.shared().mesh.change(or_reject(move |document| document.set(&name, standing))).await
    }

    /// This region goes without loss: it takes no more writes, and all others hold all it took.
    async fn check_may_go(&self, entry: &MemberEntry) -> Result<(), Reject> {
        let name = &entry.name;
        let members = &self.shared().mesh.members;
        if entry.standing != Standing::Draining {
            return Err(unmet(format!(
                "region {name} still takes writes: run `tombolo region drain {name}` first, or, if it is gone for good, \
                 `tombolo region remove {name} --dead`"
            )));
        }
        if members.present().len() < 2 {
            return Err(unmet(format!(
                "region {name} is the last one: what it holds would have no other place"
            )));
        }
        self.check_drained(entry.region, &members.document()).await
    }

    /// Errors: a text saying who lacks what of a draining region.
    async fn check_drained(&self, region: RegionId, document: &Membership) -> Result<(), Reject> {
        let shared = self.shared();
        let name = shared.mesh.members.name(region);
        let is_own = region == shared.identity.region;
        let link = if is_own {
            // Of itself a region knows what it wrote.
            PeerLink {
                is_up: true,
                epoch: Some(shared.identity.epoch),
                revision: shared.mesh.members.applied(),
                ends: std::sync::Arc::new(shared.outlets.own_ends()),
                ..PeerLink::default()
            }
        } else {
            shared.mesh.link(region).unwrap_or_default()
        };
        let Some(epoch) = link.epoch.filter(|_| link.is_up) else {
            return Err(unmet(format!(
                "region {name} is not connected, so nobody knows what it wrote last: start it, or, if it is gone for \
                 good, run `tombolo region remove {name} --dead`"
            )));
        };
        if link.revision < document.revision() {
            return Err(unmet(format!(
                "region {name} has not yet said that it drains: ask again in a moment"
            ))
            .retry_after_ms(500));
        }
        let mut lacking: Vec<(ShardId, Lack)> = Vec::new();
        for (shard, end) in link.ends.iter().copied() {
            let look =
                move |replica: &tombolo_replica::Replica, _| replica.lacking(region, Some((epoch, end)));
            let found = shared.shards.inspect(shard, look).await.unwrap_or_default();
            lacking.extend(found.into_iter().map(|lack| (shard, lack)));
        }
        if lacking.is_empty() {
            return Ok(());
        }
        let named = lacking.iter().take(NAMED_MAX).map(|(shard, lack)| {
            let by = shared.mesh.members.name(lack.by);
            format!("{by} holds shard {shard} through {} of {}", lack.held, lack.end)
        });
        let named: Vec<String> = named.collect();
        let more = lacking.len().saturating_sub(NAMED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let text =
            format!("not all that region {name} wrote is held by all others yet: {}{more}", named.join(", "));
        Err(unmet(text).retry_after_ms(500))
    }

    /// What goes with a dead region.
    ///
    /// Errors: a text that says it, unless the risk is accepted.
    async fn check_risk(&self, region: RegionId, is_accepted: bool) -> Result<Vec<Unacknowledged>, Reject> {
        let shared = self.shared();
        let name = shared.mesh.members.name(region);
        let link = shared.mesh.link(region).unwrap_or_default();
        let mut unacknowledged = Vec::new();
        let said = link.epoch.map(|epoch| (epoch, link.ends.to_vec()));
        let ends: Vec<_> =
            said.into_iter().flat_map(|(epoch, ends)| ends.into_iter().map(move |it| (epoch, it))).collect();
        for (epoch, (shard, heard)) in ends {
            let look = move |replica: &tombolo_replica::Replica, _| replica.held_by_others((region, epoch));
            let held = shared.shards.inspect(shard, look).await.unwrap_or(Seq::ZERO);
            if heard > held {
                unacknowledged.push(Unacknowledged { shard: shard.0, heard: heard.0, held: held.0 });
            }
        }
        if is_accepted {
            return Ok(unacknowledged);
        }
        let batches: u64 = unacknowledged.iter().map(|gap| gap.heard - gap.held).sum();
        let mut text = match (link.epoch, batches) {
            (None, _) => format!(
                "nothing was heard of region {name} since this one started, so what it acknowledged last and nobody else \
                 holds is not known"
            ),
            (Some(_), 0) => format!(
                "all that was heard of region {name} is held by others; what it acknowledged in its last moments is not \
                 known"
            ),
            (Some(_), _) => format!(
                "{batches} batches of region {name}, in {} shards, are held by nobody else that this one knows of",
                unacknowledged.len()
            ),
        };
        let others = shared.mesh.links().into_iter().filter(|(peer, link)| *peer != region && !link.is_up);
        let away: Vec<String> = others.map(|(peer, _)| shared.mesh.members.name(peer)).collect();
        if !away.is_empty() {
            text += &format!("; not connected, and not asked: {}", away.join(", "));
        }
        if link.is_up {
            text += &format!("; region {name} is connected: `tombolo region drain {name}` loses nothing");
        }
        text += ". It can never return under its name. Nothing was changed: add --accept-risk to remove it";
        Err(unmet(text))
    }
}
