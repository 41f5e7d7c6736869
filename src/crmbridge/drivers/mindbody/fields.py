"""Mindbody's fields as the driver's paths name them; required and custom client fields come from the site."""

from __future__ import annotations

from crmbridge.core.records import Object

__all__ = ["FIELDS"]

_CLIENT = """
FirstName            text      r  First name
LastName             text      r  Last name
MiddleName           text      -  Middle name
Email                email     -  E-mail
MobilePhone          phone     -  Mobile phone
HomePhone            phone     -  Home phone
WorkPhone            phone     -  Work phone
AddressLine1         text      -  Street
AddressLine2         text      -  Street, second line
City                 text      -  City
State                text      -  State
PostalCode           text      -  Postal code
Country              text      -  Country
BirthDate            date      -  Date of birth
Gender               text      -  Gender, one of the site's
ReferredBy           text      -  Referred by
Notes                long_text -  Notes, which the staff write too
IsProspect           boolean   -  Prospect
Active               boolean   -  Active; false deactivates
ProspectStage.Id     integer   -  Prospect stage
ProspectStage.Description text o  Prospect stage by name
LeadChannelId        integer   -  Lead channel
SendPromotionalEmails boolean  -  May be sent promotions by e-mail
Id                   text      o  Client id (barcode); the staff can change it
UniqueId             integer   o  Unique id, never changes
Status               text      o  Status of the membership
CreationDate         datetime  o  Created
LastModifiedDateTime datetime  o  Last change
"""
_LOG = """
Text                 long_text r  Text
ContactMethod        text      -  How: Phone, Email, In person, …
ContactName          text      -  Who was spoken to
FollowupByDate       datetime  -  Follow up by
AssignedToStaffId    integer   -  Assigned to
IsComplete           boolean   -  Done
CreatedDateTime      datetime  o  Created
about.Subject        text      -  Subject (a comment)
"""

FIELDS = {
    Object.CUSTOMER: _CLIENT,
    Object.LEAD: _CLIENT,
    Object.APPOINTMENT: """
StartDateTime        datetime  r  Start
EndDateTime          datetime  -  End; by the service's length when not given
SessionType          text      r  Service: the site's name for it, or its number
Staff                text      r  Member of staff: name or number; read back as the number
Location             text      r  Location: name or number
Status               pick_list:None,Requested,Booked,Completed,Confirmed,Arrived,NoShow,Cancelled,LateCancelled - Status
Notes                long_text -  Notes
StaffRequested       boolean   -  The client asked for this member of staff
ClientId             text      o  Client id (barcode)
PartnerExternalId    text      o  Our mark
FirstAppointment     boolean   o  First appointment
""",
    Object.NOTE: _LOG,
    Object.CASE: _LOG
    + """
about.Priority       text      -  Priority (a comment)
about.Category       text      -  Category (a comment)
""",
    Object.ACTIVITY: _LOG
    + """
about.Direction      text      -  Direction (a comment)
about.Started        datetime  -  Started (a comment)
about.Ended          datetime  -  Ended (a comment)
about.Seconds        integer   -  Duration in seconds (a comment)
about.Result         text      -  Result (a comment)
about.Recording      url       -  Recording (a comment)
""",
}
